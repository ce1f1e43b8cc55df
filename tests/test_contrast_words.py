"""Contrast by the words of scanners' texts, in fourteen languages."""

from __future__ import annotations

import pytest

from gliofed.dicom.contrast_words import agent_in_text, contrast_in_text, plain_text

WITHOUT = """
3D T1 C-; T1 3D v. KM; T1 SE CE-; AX T1 C-; t1 no KM; CE-; T1 (-C); T1 Gd(-); T1 KM-; t1
nativ; T1 ohne KM; T1 pre contrast; T1 w/o contrast; T1 sans gado; T1 senza mdc; T1 sin
contraste; T1 non contrast; t1 vor KM; T1 pre Gd; T1 without contrast; T1 o. KM; T1 oKM; T1
kein KM; T1 vor Kontrastmittel; T1 WITHOUT; T1 wo c; t1_pre; T1 unenhanced; T1 noncontrast;
T1 non-enhanced; T1 precontrast; T1 without IV contrast; T1 prior to contrast; T1 before
gad; T1 SANS INJECTION; T1 avant injection; T1 non injecté; T1 sans PDC; T1 avant
gadolinium; T1 sin gadolinio; T1 sin CIV; T1 s/c; T1 antes del contraste; T1 precontraste;
T1 basal; T1 sem contraste; T1 s/ contraste; T1 antes do contraste; T1 pré contraste; T1
pré-contraste; T1 senza contrasto; T1 prima del mdc; T1 basale; T1 s/mdc; T1 smdc; T1
s.m.d.c; T1 zonder contrast; T1 voor contrast; T1 blanco; T1 geen contrast; T1 voor gado; T1
bez kontrastu; T1 przed kontrastem; T1 przed podaniem kontrastu; T1 natywne; T1 bez KM; T1
bezkontrastowe; T1 bez KL; T1 před kontrastem; T1 nativně; T1 před podáním k.l.; T1 bez
k.l.; T1 kontrastsız; T1 KONTRASTSIZ; T1 kontrast öncesi; T1 ilaçsız; T1 prekontrast; T1 без
контраста; T1 без КУ; T1 без к/у; T1 до контраста; T1 до введения контраста; Т1 нативная; T1
до КУ; T1 бесконтрастная; T1 平扫; T1 平掃; T1 增强前; T1 无增强; T1 未增强; T1 非增强; T1 注射前; T1 造影前; T1
造影なし; T1 造影無し; T1 非造影; T1 単純; 造影(-) T1; T1 CE(−); T1 CE(-); T1 조영 전; T1 조영전; T1 비조영; T1 조영제
없이; T1 조영증강 전; T1_-C; T1 C -; T1 C– tra; T1 FS no gd; T1 ohne; T1 contrast: no
"""
WITH = """
T1 TSE TRA C+; T1 TSE n. KM; t1 KM; T1 Gd; t1_se_post; Ax T1 post contrast; T1 +C; T1+C; T1
C+; t1 mprage mit KM; T1 GADO; T1 apres inj; T1 con mdc; t1c; T1 MPRAGE w contrast; T1 nKM;
T1 m. KM; T1 nach Kontrastmittel; T1 CE; t1ce; T1Gd; T1_km_tra; T1 - KM; T1_-_KM; T1
KM-Gabe; T1 w/c; T1 with IV contrast; T1 after gad; T1 enhanced; T1 Après gado; T1 injecté;
T1 avec PDC; T1 apres injection; T1 IV+ CE+; T1 con gadolinio; T1 con CIV; T1 postcontraste;
T1 poscontraste; T1 después del contraste; T1 com contraste; T1 c/ contraste; T1 pós
contraste; T1 após contraste; T1 dopo mdc; T1 c/mdc; T1 +mdc; T1 con contrasto; T1 met
contrast; T1 na contrast; T1 na gado; T1 po kontraście; T1 z kontrastem; T1 + K; T1 po
podaniu kontrastu; T1 po KL; T1 s kontrastem; T1 po k.l.; T1 postkontrastní; T1 kontrastlı;
T1 kontrast sonrası; T1 ilaçlı; T1 с контрастом; T1 с КУ; T1 с к/у; T1 после контраста; T1
после введения контраста; T1 постконтраст; T1 КУ; T1 增强; T1 增強; T1 增强后; T1 C+增强; T1 造影; T1
造影後; 造影(+) T1; T1 CE(+); T1 조영; T1 조영 후; T1 조영증강; T1 조영증강 후; T1 Gd no FS; T1 without FS with
contrast; T1 no FS GD; t1_mprage_sag_p2_iso_KM; Ax 3D BRAVO +C; T1 Gadovist; T1 Dotarem;
t1_vibe_km_fs; T1 SPGRC; T1 post gd; t1_mpr_sag_KM
"""
NEITHER = """
t1_mprage_sag; T1 preop; T1 pre-op; T1 post-op; T1 pre and post; T1 post RT; T1 vor und nach
KM; T1 w/wo; T1 with and without contrast; T1 mit und ohne KM; T1 增强前后; T1 造影前後; T1 조영 전후;
T1 ohne FS; T1 without fatsat; T1 C-spine; T1 presat; cervical; AX T1; T1 3D TFE; sag t1
mprage p2 iso; T1W_3D_TFE_SENSE; Ax 3D T1 CUBE; T1 post treatment; T1 pre surgery; T1 до и
после контраста; T1 con y sin contraste; t2_tirm_tra_dark-fluid; Ax T1 FLAIR; T1 corona;
T1-C; T1 -; 血管造影; T1 FSPGR 3D no angle; vol T1; T1 kontrast öncesi ve sonrası; T1 senza e
con mdc; T1 sans et avec injection
"""


def texts(block: str) -> list[str]:
    return [" ".join(t.split()) for t in block.split(";")]


@pytest.mark.parametrize(
    ("block", "stated"),
    [(WITHOUT, False), (WITH, True), (NEITHER, None)],
    ids=("no", "yes", "neither"),
)
def test_words_of_contrast_in_the_languages_of_scanners(block, stated) -> None:
    wrong = {t: contrast_in_text(t) for t in texts(block) if contrast_in_text(t) is not stated}
    assert wrong == {}


@pytest.mark.parametrize("block", [WITHOUT, WITH, NEITHER], ids=("no", "yes", "neither"))
def test_upper_case_and_full_width_letters_mean_the_same(block) -> None:
    for text in texts(block):
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
        assert contrast_in_text(text.upper()) is contrast_in_text(text), text
        assert contrast_in_text(wide) is contrast_in_text(text), text


@pytest.mark.parametrize(
    ("text", "named"),
    [("ohne", False), ("ohne KM", False), ("none", False), ("NO", False), ("n/a", False), ("kein", False),
     ("sans", False), ("aucun", False), ("sin contraste", False), ("ninguno", False), ("sem contraste", False),
     ("senza mdc", False), ("nessuno", False), ("geen", False), ("bez kontrastu", False), ("brak", False),
     ("yok", False), ("нет", False), ("без контраста", False), ("无", False), ("没有", False), ("なし", False),
     ("造影剤なし", False), ("없음", False), ("No contrast", False), ("0", False), ("0.0 ml", False), ("-", False),
     ("", None), ("?", None), ("unbekannt", None), ("unknown", None),
     ("Gadovist", True), ("DOTAREM 15 ml", True), ("Y", True), ("Magnevist", True), ("Omniscan", True)],
)  # fmt: skip
def test_an_agent_field_names_an_agent_or_that_none_was_given(text, named) -> None:
    assert agent_in_text(text) is named


def test_accents_and_dashes_are_made_plain() -> None:
    assert plain_text("Après KONTRASTSIZ – kontraście") == "apres kontrastsiz - kontrascie"
