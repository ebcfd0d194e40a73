"""What `--help` prints: needs neither Hydra nor torch, so it answers at once."""

from pathlib import Path

CONF = Path(__file__).parent.parent / "conf"
HELP = """\
usage: python -m src.{program} [-m] [key=value ...]

{purpose}

{examples}

Groups (group=option):
{groups}

Keys (key=value; their types and meaning stand in src/config.py, a group's own in conf/GROUP/OPTION.yaml):
{keys}

Flags: -m, --multirun: one run for each combination of listed values; --cfg job: print the configuration and stop;
       --resolve: with interpolations filled in; --hydra-help: Hydra's own flags and keys.
"""


def help_text(config_name: str, program: str, purpose: str, examples: str) -> str:
    """Purpose, examples, the options of each group and the keys of the primary configuration with their values."""
    groups = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in sorted(CONF.iterdir()) if folder.is_dir()
    }
    group_lines = [f"  {group + '=':14} {', '.join(options)}" for group, options in groups.items()]
    primary = (CONF / f"{config_name}.yaml").read_text(encoding="utf-8")
    keys = [line for line in primary.partition("\n\n")[2].partition("\nhydra:")[0].splitlines() if line.strip()]
    return HELP.format(
        program=program,
        purpose=purpose,
        examples=examples,
        groups="\n".join(group_lines),
        keys="\n".join(f"  {line}" for line in keys),
    )
