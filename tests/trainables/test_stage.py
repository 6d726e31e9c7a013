from __future__ import annotations

from dataclasses import replace

from trainables.stage import CODE_VERSIONS, Stage

MAE = Stage(kind="mae", settings={"seed": 0, "mae": {"epochs": 2}}, data={"scenes": "aa"})
ALIGN = Stage(kind="align", settings={"seed": 0}, data={"scenes": "aa"}, inputs={"start": MAE})


def test_the_same_description_has_the_same_identity_in_any_key_order() -> None:
    turned = replace(MAE, settings={"mae": {"epochs": 2}, "seed": 0})
    assert turned.identity == MAE.identity


def test_whatever_decides_the_result_changes_the_identity() -> None:
    others = [
        replace(ALIGN, settings={"seed": 1}),
        replace(ALIGN, data={"scenes": "bb"}),
        replace(ALIGN, kind="mae"),
        replace(ALIGN, inputs={"start": replace(MAE, data={"scenes": "bb"})}),
        replace(ALIGN, inputs={}),
    ]
    assert len({stage.identity for stage in [ALIGN, *others]}) == len(others) + 1


def test_a_new_code_version_changes_the_identity_of_all_that_stands_on_it(monkeypatch) -> None:
    before = replace(ALIGN, inputs={"start": replace(MAE)}).identity
    monkeypatch.setitem(CODE_VERSIONS, "mae", CODE_VERSIONS["mae"] + 1)
    assert replace(ALIGN, inputs={"start": replace(MAE)}).identity != before


def test_a_chain_has_inputs_before_what_needs_them() -> None:
    assert [stage.kind for stage in ALIGN.chain()] == ["mae", "align"]
