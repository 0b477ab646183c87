"""Names of written files: one to one, the example's own, and such that any file system takes."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latlas.verbs.names import LONGEST, LONGEST_PATH, file_name, file_names, same_but_for_case

WORDS = ["a", "b", "A", "a.", " ", "..", ".", "", "é", "日本", "a b", "a_b", "con", "x.jpg", "%41",
         "%", "\\", ":", "\udce9", "\ud800", "n" * 250, "é" * 126, "results.json", ".a.png.part"]
ENDINGS = ["", ".png", ".PNG", ".jpg", ".JPG", ".wav", ".gif", "%.png", ".png.png", ".jpg.png",
           "%2Ejpg.png", "%~2.png", "_00001.png", ".txt"]
PARTS = st.one_of(st.builds(lambda *v: "".join(v), st.sampled_from(WORDS),
                            st.sampled_from(ENDINGS)),
                  st.text(st.characters(), max_size=6))
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(NAMES, unique=True, max_size=12), st.sampled_from([".png", ".wav", ".gif"]),
       st.randoms())
@example(["a", "a.png", "a.jpg", "a.jpg.png", "a.png/b", "/a", "a/", "a//b", ""], ".png", None)
@example(["/".join(["d" * 200] * 8), "/".join(["d" * 200] * 9)], ".png", None)
def test_names_are_one_to_one_whatever_else_is_there(names, ending, random):
    files = file_names(names, ending)
    assert len(set(files)) == len(names)
    folders = {"/".join(f.split("/")[:i]) for f in files for i in range(1, f.count("/") + 1)}
    assert not folders & set(files)  # no folder is in the way of a file
    for file in files:
        parts = file.split("/")
        assert all(0 < len(p.encode()) <= LONGEST and p not in (".", "..") for p in parts)
        assert len(file.encode()) <= LONGEST_PATH and not file.startswith("/")
        assert file.lower().endswith(ending) and not set(file) & set('\0\\<>:"|?*')
    some = [n for n in names if random is None or random.random() < 0.5][::-1]
    assert file_names(some, ending) == [files[names.index(n)] for n in some]


@pytest.mark.parametrize(("name", "file"), [
    ("a b.png", "a b.png"), ("a_b.png", "a_b.png"), ("a_b_00001.png", "a_b_00001.png"),
    ("a/x.png", "a/x.png"), ("b/x.png", "b/x.png"), ("猫/ж é.png", "猫/ж é.png"),
    ("X.PNG", "X.PNG"), ("x.PNG", "x.PNG"), ("v1.2.png", "v1.2.png"), ("50%.png", "50%25.png"),
    ("cat.jpg", "cat.jpg.png"), ("cat.jpg.png", "cat%2Ejpg.png"), ("cat", "cat%.png"),
    ("../dog.png", "%2E%2E/dog.png"), ("/etc/x.png", "%2Fetc/x.png"), ("a/./b.png", "a/%2E/b.png"),
    ("C:\\x.png", "C%3A%5Cx.png"), ("a?.png", "a%3F.png"), ("x\n.png", "x%0A.png"),
    ("caf\udce9.png", "caf%E9.png"), ("con.png", "%63on.png"), ("d./x.png", "d%2E/x.png")])
def test_only_what_a_file_system_cannot_hold_is_escaped(name, file):
    assert file_name(name, ".png") == file
    if "%." not in file and "\udce9" not in name:
        assert unquote(file) == (name if name.lower().endswith(".png") else f"{name}.png")


def test_long_names_keep_their_head_and_stay_apart():
    names = ["x" * 251 + ".png", "x" * 252 + ".png", "x" * 253 + ".png", "é" * 200 + ".png"]
    files = file_names(names)
    assert files[0] == names[0] and len(set(files)) == 4
    assert all(len(f.encode()) <= LONGEST and f[:50] == n[:50]
               for f, n in zip(files, names, strict=True))


def test_examples_of_one_name_are_numbered():
    assert file_names(["x.png", "y.png", "x.png"]) == ["x.png", "y.png", "x%~2.png"]


def test_names_that_differ_in_case_alone_are_noticed():
    assert same_but_for_case(["a", "b", "B"]) == ("b", "B")
    assert same_but_for_case(["a", "b"]) is None
