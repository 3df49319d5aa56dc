"""Text for LaTeX, in ASCII: it compiles with pdflatex whatever is in a name, and in every encoding of a paper.

Accents, letters and signs become LaTeX's own. What pdflatex has no letter for, such as 模, is written as Python would
write it, \\u6a21. Some letters need \\usepackage[T1]{fontenc}.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from analysis.results.visible import visible


def _pairs(text: str) -> dict[str, str]:
    """ "a b c d" -> {"a": "b", "c": "d"}."""
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


# Combining signs -> the command that puts them on a letter.
ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0328\u0331",
        "`'^~=u.\"rHvdckb",
        strict=True,
    )
)
BELOW = "\u0323\u0327\u0328\u0331"
MATHS = _pairs(
    "α alpha β beta γ gamma δ delta ε varepsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi "
    "ρ rho ς varsigma σ sigma τ tau υ upsilon φ varphi χ chi ψ psi ω omega ϕ phi ϵ epsilon ϑ vartheta "
    "Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega "
    "× times ÷ div ± pm ∓ mp · cdot ⋅ cdot ∗ ast ∘ circ √ surd ∞ infty ∝ propto ∂ partial ∇ nabla ∑ sum ∏ prod ∫ int "
    "≤ leq ≥ geq ≪ ll ≫ gg ≈ approx ≡ equiv ≠ neq ∼ sim ≃ simeq ∈ in ∉ notin ∅ emptyset ∩ cap ∪ cup ⊂ subset ∀ forall "
    "∃ exists ¬ neg ∧ wedge ∨ vee ⊕ oplus ⊗ otimes ∥ parallel ‖ Vert ⟨ langle ⟩ rangle ℓ ell "
    "← leftarrow → rightarrow ↑ uparrow ↓ downarrow ↔ leftrightarrow ⇐ Leftarrow ⇒ Rightarrow ⇔ Leftrightarrow "
    "↦ mapsto • bullet ★ star △ triangle ◇ diamond"
)
LETTERS = _pairs(
    "ß ss æ ae Æ AE œ oe Œ OE ø o Ø O ł l Ł L đ dj Đ DJ ð dh Ð DH þ th Þ TH ı i ȷ j ŋ ng Ŋ NG § S ¶ P © copyright "
    "£ pounds † dag ‡ ddag ™ texttrademark ® textregistered € texteuro ¥ textyen ¢ textcent ° textdegree "
    "¡ textexclamdown ¿ textquestiondown « guillemotleft » guillemotright ‹ guilsinglleft › guilsinglright "
    "‚ quotesinglbase „ quotedblbase … dots"
)
SIGNS = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: rf"$\{command}$" for character, command in MATHS.items()},
    **{character: rf"\{command}{{}}" for character, command in LETTERS.items()},
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True)),  # Greek capitals that look Latin, and omicron
    **_pairs("‘ ` ’ ' “ `` ” '' ‐ - – -- — --- − $-$ ʼ ' ⁄ /"),
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # for babel's German it would be an accent
    "\u00a0": "~",
    "\u2009": r"\,",
}
WITH_ACCENTS = re.compile(r".[\u0300-\u036f]*")
JOINED = "-'`,"  # two of one make another sign
# What is typed for want of a key, in prose.
TYPED = {
    r"(?<![\w'])'(\w[^']*)'(?!\w)": r"‘\1’",
    r'"([^"]*)"': r"“\1”",
    r"(?<=\d) x (?=\d)": " × ",
    r"(?<= )-(?= )": "–",
    r"(?<![\w-])-(?=\.?\d)": "−",
    r"(?<=\d) (?=%)": "\u2009",
    r"\b(Figs?\.|Tables?) (?=\d)": "\\1\u00a0",
}


def latex_text(text: str) -> str:
    """`text` that reads as it is: nothing in it is a command, and no two signs are joined to another one."""
    tokens = [_token(found) for found in WITH_ACCENTS.findall(unicodedata.normalize("NFC", visible(text)))]
    apart = [token + "{}" * _join(token, after) for token, after in pairwise([*tokens, ""])]
    # A bracket or star at a line's begin would belong to the end of a table's line before.
    return re.sub(r"^(?=\s*[\[*])", "{}", "".join(apart))


def latex_prose(text: str) -> str:
    """Sentences, with the quotes, dashes, minus and times signs and narrow spaces that were typed as others."""
    for typed, meant in TYPED.items():
        text = re.sub(typed, meant, text)
    return latex_text(text)


def _join(token: str, after: str) -> bool:
    return bool(after) and token[-1] + after[0] in {*(2 * sign for sign in JOINED), "?`", "!`"}


def _token(character: str) -> str:
    """A character, with the accents on it."""
    if character in SIGNS:
        return SIGNS[character]
    base, *accents = unicodedata.normalize("NFD", character)
    if not accents and base.isascii():
        return base
    is_letter = base.isalpha() and (base.isascii() or base in SIGNS)
    if accents and is_letter and ACCENTS.keys() >= set(accents):
        letter = _token(base)
        for accent in sorted(accents, key=BELOW.__contains__):  # LaTeX puts only those below on what has one
            letter = rf"\{ACCENTS[accent]}{{{letter}}}"
        return letter
    if len(character) > 1:  # with an accent that LaTeX has not
        return "".join(map(_token, character))
    form, _, codes = unicodedata.decomposition(character).rpartition("> ")
    if form:  # another form of other characters: a superscript, a ligature, a wide letter
        plain = latex_text("".join(chr(int(code, 16)) for code in codes.split()))
        script = {"<super": "superscript", "<sub": "subscript"}.get(form)
        return rf"\text{script}{{{plain}}}" if script else plain
    return rf"\textbackslash{{}}{character.encode('unicode_escape').decode()[1:]}"
