"""Every link in the pages has a target, and every command, option and knob exists."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline import cli, config
from serving.server import flags
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("serving/client/*.md")])
HISTORICAL_PAGES = ("CHANGELOG.md", "docs/benchmarks.md")  # their commands may not exist any more
FENCE = re.compile(r"^(```+)(\w*)\n(.*?)^\1$", re.M | re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.M)
SUBCOMMAND = re.compile(r"^ {4}(\S+)", re.M)  # argparse indents them more than arguments
SET = re.compile(r"(?<!\S)--set[ =]['\"]?([a-z_]+)\.([a-z_]+)=")
KNOB = re.compile(r"([a-z_]+)\.([a-z_]+)(?:=.*)?", re.S)
FOLDERS = ("benchmarks", "components", "docs", "k8s", "pipeline", "schemas", "tests")
IN_TREE = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*|serving/(?:client|server)/[\w./-]*")


def relative_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative_name)
def test_every_link_has_a_target(page: Path) -> None:
    assert not list(broken_links(page.read_text("utf-8"), page))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if relative_name(p) not in HISTORICAL_PAGES], ids=relative_name
)
def test_commands_and_knobs_and_files_exist(page: Path) -> None:
    assert not list(mistakes(page.read_text("utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "`goodseed fly`",
        "`goodseed kfp fly`",
        "`goodseed run --fly`",
        "`goodseed run --set trainer.fly=1`",
        "`goodseed serve --fly=1`",
        "`make fly`",
        "`make test FLY=1`",
        "`python -m benchmarks.fly`",
        "`python -m benchmarks.client --fly`",
        "`trainer.fly`",
        "`pipeline/fly.py`",
        "text\n\n    goodseed run \\\n      --fly\n",
        "```sh\ncd /tmp && .venv/bin/goodseed run --fly  # a comment\n```\n",
    ],
)
def test_a_mistake_is_found(text: str) -> None:
    assert "fly" in "".join(mistakes(text)).lower()


@pytest.mark.parametrize("link", ["fly.md", "README.md#fly", "#fly"])
def test_a_broken_link_is_found(link: str) -> None:
    assert list(broken_links(f"# Heading\n\n[text]({link})\n", ROOT / "page.md")) == [link]


def test_links_in_code_and_to_other_sites_are_not_checked() -> None:
    text = "# Heading\n\n`[text](fly.md)` [text](https://example.org/fly) [text](#heading)\n"
    assert not list(broken_links(text, ROOT / "page.md"))


def test_pre_commit_runs_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    values = dict(re.findall(r"^(bin|packages) +:= (.*)$", makefile, re.M))
    commands = [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], line) for line in recipe]
    assert [hook["entry"] for hook in hooks] == [command.strip() for command in commands]


def broken_links(text: str, page: Path) -> Iterator[str]:
    """Relative links of a page to a file or a heading that is not there."""
    for link in LINK.findall(SPAN.sub("", FENCE.sub("", text))):
        name, _, anchor = link.partition("#")
        target = page.parent / name
        if re.match(r"[a-z]+:", link):
            continue
        found = target.exists()
        if found and anchor:
            found = anchor in anchors(target.read_text("utf-8") if name else text)
        if not found:
            yield link


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes from the headings."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def mistakes(text: str) -> Iterator[str]:
    """The commands, knobs and files of a page that do not exist."""
    blocks = [code for _, kind, code in FENCE.findall(text) if kind in ("", "sh")]
    prose = FENCE.sub("", text)
    spans = SPAN.findall(INDENTED.sub("", prose))
    for code in [*blocks, *INDENTED.findall(prose), *spans]:
        for section, key in SET.findall(code):
            yield from wrong_knob(section, key)
        for words in commands(code):
            yield from wrong_command(words)
    for span in spans:
        knob = KNOB.fullmatch(span)
        if knob and knob[1] in config.Config.model_fields and knob[2] not in ("py", "json"):
            yield from wrong_knob(*knob.groups())
        if IN_TREE.fullmatch(span) and not (ROOT / span).exists():
            yield f"no {span}"


def commands(code: str) -> Iterator[list[str]]:
    """The words of each simple command. Other code gives words that no check knows."""
    for line in re.sub(r"\\\n", " ", code).splitlines():
        for part in re.split(r"&&|\||;", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if words:
                yield [word.strip("[]…") for word in words]


def wrong_command(words: list[str]) -> Iterator[str]:
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program == "make":
        yield from wrong_target(arguments)
    elif program == "python" and re.match(r"-m benchmarks\.", " ".join(arguments)):
        yield from wrong_benchmark(arguments[1], arguments[2:])
    elif program == "goodseed":
        yield from wrong_arguments(arguments)


def wrong_arguments(arguments: list[str]) -> Iterator[str]:
    """Commands and options that the help of `goodseed` does not have."""
    path: tuple[str, ...] = ()
    for word in arguments:
        subcommands = SUBCOMMAND.findall(help_of(path))
        if not subcommands or word.startswith("-"):
            break
        if word not in subcommands:
            yield f"goodseed {' '.join((*path, word))}: no such command"
            return
        path = (*path, word)
    for option in options(arguments):
        if not re.search(rf"(?<![\w-]){option}(?![\w-])", help_of(path)):
            yield f"goodseed {' '.join(path)} has no {option}"


@functools.cache
def help_of(path: tuple[str, ...]) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        if path == ("serve",):  # without the server, which imports TensorFlow
            flags.parse(["--help"])
        cli.main([*path, "--help"])
    return text.getvalue()


def wrong_target(arguments: list[str]) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, equals, _ = word.partition("=")
        if equals and f"$({name})" not in makefile and f"$(if $({name})" not in makefile:
            yield f"make has no variable {name}"
        is_target = not equals and re.fullmatch(r"[a-z-]+", word)
        if is_target and not re.search(rf"^{word}:", makefile, re.M):
            yield f"make has no target {word}"


def wrong_benchmark(module: str, arguments: list[str]) -> Iterator[str]:
    """Looks at the source, since importing a benchmark would import TensorFlow."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not file.exists():
        yield f"no {module}"
        return
    known = {
        call.args[0].value
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "add_argument"
        and isinstance(call.args[0], ast.Constant)
    }
    for option in options(arguments):
        if option not in known:
            yield f"{module} has no {option}"


def options(arguments: list[str]) -> Iterator[str]:
    for word in arguments:
        if re.match(r"--\w", word) and word != "--help":  # every command has it
            yield word.partition("=")[0]


def wrong_knob(section: str, key: str) -> Iterator[str]:
    if (section, key) == ("section", "key"):  # a placeholder
        return
    field = config.Config.model_fields.get(section)
    known = getattr(field.annotation, "model_fields", {}) if field else {}
    if key not in known:
        yield f"no knob {section}.{key}"
