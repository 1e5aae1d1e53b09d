"""tools/check_commands: which commands a page has, what they need, and that one that fails is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_commands.__main__ import ROOT, pages, run_page
from tools.check_commands.blocks import MarkError, commands_of
from tools.check_commands.place import Place


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("tree", "home"):
        (tmp_path / name).mkdir()
    return Place(tmp_path / "tree", tmp_path / "home")


PAGE = """\
Text with `matchrt code`.

```sh
# a comment
one --a \\
  --b
for x in 1 2; do
  echo $x
done
```

```text
output
```

    matchrt indented   # said

    an indented text

```python
print(1)

print(2)
```
"""


def test_lines_and_blocks(tmp_path: Path) -> None:
    found = commands_of(page_of(tmp_path, PAGE))
    assert [(command.line, command.language, command.text) for command in found] == [
        (5, "sh", "one --a \\\n  --b"),
        (7, "sh", "for x in 1 2; do\n  echo $x\ndone"),
        (16, "sh", "matchrt indented   # said"),
        (21, "python", "print(1)\n\nprint(2)"),
    ]
    assert not any(command.needs for command in found)


def test_marks(tmp_path: Path) -> None:
    text = (
        "<!-- needs: network: curl -->\n<!-- needs: gpu: nvidia -->\n\n```sh\ncurl x\nls\nnvidia-smi\n```\n\n"
        "<!-- needs: docker -->\n```bash\na\nb\n```\n\n```sh\nc\n```\n"
    )
    found = commands_of(page_of(tmp_path, text))
    assert [command.needs for command in found] == ["network", "", "gpu", "docker", "docker", ""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- needs: money -->\n```sh\nls\n```\n", "no need is called 'money'"),
        ("<!-- needs: gpu: ls -->\n```sh\npwd\n```\n", "no line of the block begins with 'ls'"),
        ("<!-- needs: gpu -->\n\nText.\n\n```sh\nls\n```\n", "before no block"),
        ("```sh\nls\n```\n\n<!-- needs: gpu -->\n", "before no block"),
    ],
)
def test_a_mark_that_says_nothing_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MarkError, match=says):
        commands_of(page_of(tmp_path, text))


def test_what_fails_is_found(tmp_path: Path, place: Place) -> None:
    text = (
        "```sh\ntouch made\ntest -f made   # the page's commands share a folder\nfalse | cat\n```\n"
        "<!-- needs: gpu -->\n```sh\nfalse\n```\n```python\nraise SystemExit('why')\n```\n"
    )
    failed, left = run_page(commands_of(page_of(tmp_path, text)), place, tmp_path)
    assert [command.text for command, _ in failed] == ["false | cat", "raise SystemExit('why')"]
    assert "why" in failed[1][1] and [command.needs for command in left] == ["gpu"]
    assert (place.folder / "made").is_file()


def test_a_command_that_hangs_is_ended(place: Place) -> None:
    code, output = place.run("echo begun; sleep 60 & sleep 60", "sh", 1.0)
    assert code == 124 and "begun" in output


def test_an_extra_that_is_not_there_fails(tmp_path: Path, place: Place) -> None:
    text = "```sh\necho \"WARNING: matchrt 0.1.0 does not provide the extra 'rxt'\"\n```\n"
    failed, _ = run_page(commands_of(page_of(tmp_path, text)), place, tmp_path)
    assert "rxt" in failed[0][1]


def test_the_marks_of_all_pages_are_right() -> None:
    every = [command for page in pages(ROOT) for command in commands_of(page)]
    assert len(every) > 100 and sum(not command.needs for command in every) > 40
    assert any(command.page == ROOT / "README.md" and not command.needs for command in every)
