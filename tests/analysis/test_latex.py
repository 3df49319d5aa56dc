"""Text for LaTeX: signs and letters of many languages, what was typed for others, and that pdflatex takes it all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.paper.latex import SIGNS, latex_prose, latex_text
from analysis.paper.write import PAGE

LETTERS = [sign for sign in map(chr, range(sys.maxunicode)) if unicodedata.category(sign) not in {"Cs", "Co", "Cn"}]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("Fréchet", r"Fr\'{e}chet"),
        ("Fre\u0301chet", r"Fr\'{e}chet"),
        ("Größe Łódź", r"Gr\"{o}\ss{}e \L{}\'{o}d\'{z}"),
        ("ậ", r"\d{\^{a}}"),  # the other way round, the accent would stand beside its letter
        ("256×256 − 1 ↓ ↑", r"256$\times$256 $-$ 1 $\downarrow$ $\uparrow$"),
        ("α β₁ Ω ΑΒ", r"$\alpha$ $\beta$\textsubscript{1} $\Omega$ AB"),
        ("10⁻⁹", r"10\textsuperscript{$-$}\textsuperscript{9}"),
        ("µm ﬁne ½ №", r"$\mu$m fine 1/2 No"),
        (
            "模 я 😀 é\u0336",
            r"\textbackslash{}u6a21 \textbackslash{}u044f \textbackslash{}U0001f600 \'{e}\textbackslash{}u0336",
        ),
        ("‘a’ “b” – —", "`a' ``b'' -- ---"),
        ("–- '' ,, ?‘", "--{}- '{}' ,{}, ?{}`"),
    ],
)
def test_signs_and_letters(text: str, latex: str) -> None:
    assert latex_text(text) == latex


@pytest.mark.parametrize(
    ("typed", "latex"),
    [
        ("the paper's 'Gflops', the models' \"x\"", "the paper's `Gflops', the models' ``x''"),
        ("ImageNet 256 x 256", r"ImageNet 256 $\times$ 256"),
        ("a function of x alone", "a function of x alone"),
        ("measured - published", "measured -- published"),
        ("-0.5 to -.3, adaln-zero, 3-4, 1e-7", r"$-$0.5 to $-$.3, adaln-zero, 3-4, 1e-7"),
        ("90% and 36 % (Fig. 9, Tables 2 and 3)", r"90\% and 36\,\% (Fig.~9, Tables~2 and 3)"),
    ],
)
def test_what_was_typed_for_another_sign_in_prose(typed: str, latex: str) -> None:
    assert latex_prose(typed) == latex


@given(st.text())
def test_any_text_is_ascii_with_every_brace_closed(text: str) -> None:
    for written in (latex_text(text), latex_prose(text)):
        assert written.isascii() and "\n" not in written
        bare = re.sub(r"\\[{}]", "", written)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") - bare.count(r"\$") == 2 * len(re.findall(r"(?<!\\)\$[^$]+\$", bare))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_pdflatex_takes_every_character(tmp_path: Path) -> None:
    texts = {latex_text(sign) for sign in LETTERS}
    known = sorted(text for text in texts if "textbackslash" not in text or text == SIGNS["\\"])
    assert len(known) > 1000
    strange = sorted(texts - set(known))[::500]
    body = "\n\n".join([*known, *strange, latex_text("".join(SIGNS))])
    page = PAGE.replace("%FIGURES%", rf"\sloppy {body}").replace("%TABLES%", "")
    (tmp_path / "t.tex").write_text(page, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text(encoding="latin-1")
