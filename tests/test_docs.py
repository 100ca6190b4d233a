"""The code in docs/adding.md runs, and README.md mentions every command."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_code_of_adding_runs():
    text = (ROOT / "docs" / "adding.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    exec(compile("\n".join(blocks), "docs/adding.md", "exec"), {"__name__": "adding"})  # noqa: S102


def commands() -> list[str]:
    from gpnp_cli.cli.app import app

    return [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]


def test_readme_shows_every_command():
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in commands() if f"gpnp {name}" not in text]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_config_is_valid(path):
    from gpnp_cli.config import check_file

    assert check_file(path) == []


def test_settings_shown_in_the_tutorial_are_the_recipes():
    import yaml

    text = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    recipe = yaml.safe_load((ROOT / "configs" / "train-digits.yaml").read_text("utf-8"))
    for key, value in yaml.safe_load(block).items():
        shown = value.items() if isinstance(value, dict) else [(None, value)]
        for inner, expected in shown:
            assert (recipe[key] if inner is None else recipe[key][inner]) == expected, (key, inner)
