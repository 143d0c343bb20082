"""Prints include/sss.h as the manual page sss.h(3).

packaging/docs.py makes a page of the site from the same parts. Understands what cbindgen writes for
this library, not C.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

HEADER = Path(__file__).resolve().parents[1] / "include" / "sss.h"


@dataclass
class Item:
    """A function, type or macro with its comment. `code` is as in the header."""

    kind: str
    name: str
    comment: str
    code: str


@dataclass
class Header:
    introduction: str
    items: list[Item]

    def of_kind(self, kind: str) -> list[Item]:
        return [item for item in self.items if item.kind == kind]


def parse(text: str) -> Header:
    first = re.match(r"\s*/\*\n(.*?)\*/", text, re.DOTALL)
    assert first, "the header begins with a comment"
    introduction = uncommented(first[1]).split("\n", 1)[1].strip("\n")
    introduction = introduction.split("\n\nGenerated from")[0]
    items: list[Item] = []
    pattern = re.compile(
        r"(?:/\*\*?(?P<comment>(?:(?!\*/).)*)\*/\n)?(?:"
        r"(?P<macro>(?:#define SSS_\w+(?:\(\w+\))? [^\n]*\n)+)"
        r"|(?P<struct>typedef struct \{.*?\n\} (?P<struct_name>\w+);\n)"
        r"|(?P<typedef>typedef \w+ (?P<typedef_name>\w+);\n)"
        r"|(?P<function>(?:const )?\w+ \*?(?P<function_name>sss_\w+)\([^;]*\);\n)"
        r")",
        re.DOTALL,
    )
    for match in pattern.finditer(text, first.end()):
        comment = uncommented(match["comment"] or "").strip("\n ")
        for kind in ("macro", "struct", "typedef", "function"):
            if code := match[kind]:
                name = re.split(r"[ (]", code)[1] if kind == "macro" else match[f"{kind}_name"]
                items.append(Item(kind, name, comment, code.rstrip("\n")))
    return Header(introduction, items)


def uncommented(comment: str) -> str:
    return "\n".join(re.sub(r"^ ?\*? ?", "", line, count=1).rstrip() for line in comment.split("\n"))


def blocks(text: str) -> list[tuple[str, str]]:
    """The paragraphs of a comment: ("text" | "list" | "code", the text without its indentation)."""
    found = []
    for paragraph in re.split(r"\n{2,}", text):
        lines = paragraph.split("\n")
        for start, line in enumerate(lines):
            if line.startswith("- "):
                if start:
                    found.append(("text", "\n".join(lines[:start])))
                entries = re.split(r"\n(?=- )", "\n".join(lines[start:]))
                found += [("list", " ".join(entry[2:].split())) for entry in entries]
                break
        else:
            kind = "code" if lines[0].startswith("  ") else "text"
            found.append((kind, textwrap.dedent(paragraph) if kind == "code" else " ".join(lines)))
    return found


def roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def described(text: str) -> str:
    macros = {"text": ".PP\n{}", "list": ".IP \\(bu 2\n{}", "code": ".PP\n.in +4\n.EX\n{}\n.EE\n.in"}
    return "\n".join(macros[kind].format(roff(body)) for kind, body in blocks(text) if body)


def page(header: Header, version: str) -> str:
    # Without a date, so that the same sources give the same page.
    parts = [f'.TH sss.h 3 "" "libsss {version}" "Library Functions"']
    parts += [".SH NAME\nsss.h \\- server\\-side session store"]
    parts += [".SH SYNOPSIS\n.B #include <sss.h>\n.PP\ncc app.c $(pkg\\-config \\-\\-cflags \\-\\-libs sss)"]
    parts += [".SH DESCRIPTION", described(header.introduction)]
    sections = {"FUNCTIONS": ["function"], "TYPES": ["typedef", "struct"], "CONSTANTS AND MACROS": ["macro"]}
    for title, kinds in sections.items():
        parts.append(f".SH {title}")
        for item in header.items:
            if item.kind in kinds:
                heading = item.name if item.kind != "macro" else item.code.split("\n")[0].split(" ", 1)[1]
                parts.append(f".SS {roff(heading)}")
                if item.kind != "macro" or "\n" in item.code:
                    parts.append(f".EX\n{roff(item.code)}\n.EE")
                if item.comment:
                    parts.append(described(item.comment))
    parts.append(".SH SEE ALSO\n.BR sss (1)")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    text = HEADER.read_text()
    version = re.search(r'#define SSS_VERSION_STRING "(.*)"', text)
    assert version
    print(page(parse(text), version[1]), end="")
