"""What `--help` prints: needs neither Hydra nor torch, so it answers at once."""

import re
from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"
HELP = """\
usage: python -m src.{program} {usage}

{purpose}

{examples}
{groups}
Keys (key=value; their types and meaning stand in src/config.py, a group's own in conf/GROUP/OPTION.yaml):
{keys}

Flags: --cfg job: print the configuration and stop; --resolve: with interpolations filled in{swept}
"""
GROUPS = """
Groups (group=option):
{lines}
"""
SWEPT = """;
       -m, --multirun: one run for each combination of listed values; --hydra-help: Hydra's own flags and keys

Keys of a sweep: study.plan=true (print what it costs, and stop), study.resume=FOLDER (go on), study.on_error=stop,
       study.again=true (train what was finished before again); `python -m src.runs explain KEY` says more of any key"""


def help_text(config_name: str, program: str, purpose: str, examples: str, is_swept: bool = True) -> str:
    """Purpose, examples, the options of each group and the keys of the primary configuration with their values."""
    primary = (CONF / f"{config_name}.yaml").read_text(encoding="utf-8")
    groups = re.findall(r"^  - (\w+): ", primary, re.MULTILINE)
    options = {group: sorted(file.stem for file in (CONF / group).glob("*.yaml")) for group in groups}
    group_lines = [f"  {group + '=':14} {', '.join(names)}" for group, names in options.items()]
    keys = [line for line in primary.partition("\n\n")[2].partition("\nhydra:")[0].splitlines() if line.strip()]
    return HELP.format(
        program=program,
        usage="[-m] [key=value ...]" if is_swept else "[key=value ...]",
        swept=SWEPT if is_swept else "",
        purpose=purpose,
        examples=examples,
        groups=GROUPS.format(lines="\n".join(group_lines)) if groups else "",
        keys="\n".join(f"  {line}" for line in keys),
    )
