"""Names that are markup somewhere, for the tests that they are data everywhere."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = [
    "$x_{1}$",
    r"$\nothing$ \$ $",
    "_hidden",
    "100 % of #1 & more_than_that ~^",
    r"C:\new\table",
    "<script>alert('1')</script>",
    "</title></svg>&amp;&lt;",
    "a|b\\|c",
    "**bold** `code` ![x](y) [link](http://example.com)",
    "[red]rich[/] [/] :smile: [[",
    "{size} {0} {{ jinja }} {% raw %}",
    "[0pt] row",
    "* starred -- and --- ''two''",
    "file",
    "../../etc/passwd",
    "a, b step 7 seed 1",
    "-1 step -2",
    "two\nlines\r\nand\ttabs",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202eright to left\u2028line",
    "nul\x00, control \x9b",
    "日本語 😀 ÿ",
    "=1+1",
    "x" * 300,
]
# As many of their parts as fit, in any order.
PARTS = [*"$\\_%#&|*`<>[]{}~^-'\"\n\r"]
PARTS += ["\x1b[1m", "\x00", "\u202e", "\ud800", "</td>", "&lt;", " ", "a", "1", "é", "!", ":", "\\n", "\x85"]
names = st.one_of(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=12).map("".join),
    st.text(min_size=1, max_size=12),
)
