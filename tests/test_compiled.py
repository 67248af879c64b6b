"""The hot rooms run compiled, and from what was compiled."""

import importlib
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
compiled = runpy.run_path(str(ROOT / "scripts" / "compile.py"))


@pytest.mark.skipif(not compiled["is_compiled"](), reason="nothing is compiled here; `make setup` does")
def test_each_hot_module_is_the_compiled_one() -> None:
    interpreted = []
    for path in compiled["sources"]():
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        if not str(module.__file__).endswith(".so"):
            interpreted.append(module.__name__)
    assert interpreted == []


def test_the_list_of_hot_modules_names_none_that_is_gone() -> None:
    package = ROOT / "src" / "pyetcd"
    for pattern in compiled["HOT"]:
        for one in compiled["_each"](pattern):
            assert list(package.glob(one)), one


def test_a_source_that_was_edited_since_is_named(tmp_path: Path) -> None:
    made_of = compiled["digests"]()
    name = "src/pyetcd/mvcc/writer.py"
    record = tmp_path / "made-of.json"
    record.write_text(compiled["json"].dumps({**made_of, name: "another"}))
    stale = compiled["stale"]
    before = stale.__globals__["MADE_OF"]
    stale.__globals__["MADE_OF"] = record
    try:
        assert stale() == [name]
        record.write_text(compiled["json"].dumps(made_of))
        assert stale() == []
        record.unlink()
        assert stale() == []
    finally:
        stale.__globals__["MADE_OF"] = before
