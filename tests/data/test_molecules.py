import math
import subprocess
import sys

import pytest
import torch

from pfmcourse import base
from pfmcourse.data import molecules, source

COUNT = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few molecules, read here and not from an earlier run's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        molecules.load.cache_clear()
        loaded = molecules.load(COUNT)
        molecules.load.cache_clear()
        again = molecules.load(COUNT)
        molecules.load.cache_clear()
    same(loaded, again)
    assert loaded.removed == again.removed
    return loaded


def same(one, other):
    assert (one.smiles, one.names) == (other.smiles, other.names)
    assert one.descriptor_names == other.descriptor_names and one.scaffold_names == other.scaffold_names
    for field in ("atoms", "edges", "bonds", "graph", "descriptors", "fingerprints", "scaffolds", "parts"):
        assert torch.equal(getattr(one, field), getattr(other, field)), field
    assert one.properties.keys() == other.properties.keys()
    for name, values in one.properties.items():
        assert torch.equal(values.nan_to_num(-1), other.properties[name].nan_to_num(-1))


def test_the_fields_agree(data):
    assert len(data) == len(data.names) == len(set(data.smiles)) == COUNT
    assert data.graph.unique().numel() == COUNT and (data.graph.diff() >= 0).all()
    assert data.atoms.amax(0).lt(torch.tensor(list(molecules.ATOM_FIELDS.values()))).all()
    assert data.bonds.amax(0).lt(torch.tensor(list(molecules.BOND_FIELDS.values()))).all()
    assert data.sizes.max() <= molecules.HEAVY and data.sizes.min() >= 2
    assert len(data.descriptor_names) == len(set(data.descriptor_names)) == data.descriptors.shape[1] == 285
    assert data.descriptors.isfinite().all() and data.filled == 0
    assert data.fingerprints.unique().tolist() == [0, 1] and data.fingerprints.any(1).all()
    assert len(data.scaffold_names) == data.scaffolds.unique().numel() == data.scaffolds.max() + 1
    weight = data.descriptors[:, data.descriptor_names.index("NumHeavyAtoms")]
    assert torch.equal(weight.long(), data.sizes)


def test_no_descriptor_is_made_from_logp(data):
    assert not [name for name in data.descriptor_names if "crippen" in name.lower() or "logp" in name.lower()]
    assert not [name for name in data.descriptor_names if name.startswith(("SlogP", "SMR"))]


def test_every_bond_goes_both_ways_within_a_molecule(data):
    source_of, target = data.edges
    assert torch.equal(data.graph[source_of], data.graph[target])
    there = {(a, b): tuple(bond) for a, b, bond in zip(*data.edges.tolist(), data.bonds.tolist(), strict=True)}
    assert len(there) == data.edges.shape[1]
    assert all(there[b, a] == bond for (a, b), bond in there.items())
    assert torch.equal(torch.bincount(source_of).clamp(max=5), data.atoms[:, 1].long())


def test_known_properties_come_first(data):
    known = torch.stack([~values.isnan() for values in data.properties.values()])
    assert tuple(data.properties) == molecules.PROPERTIES
    assert known.any(0).float().mean() > 0.99
    for name, highest in molecules.HIGHEST.items():
        values = data.properties[name][~data.properties[name].isnan()]
        assert len(values) > 50 and values.min() > 50 and values.max() <= highest
    assert data.removed["salt or mixture"] > 0 and all(count > 0 for count in data.removed.values())


def test_the_tables_hold_what_handbooks_say():
    values, absurd = molecules._values(source.verified("molecules"))
    assert values["boiling"][64175] == pytest.approx(351.4, abs=0.5)  # ethanol
    assert values["melting"][71432] == pytest.approx(278.6, abs=0.5)  # benzene
    assert values["logp"][71432] == pytest.approx(2.13, abs=0.01)
    assert values["permittivity"][67641] == pytest.approx(math.log10(21), abs=0.02)  # acetone
    assert absurd["boiling"] and max(values["boiling"].values()) <= 900 and min(values["melting"].values()) > 0


def test_two_processes_give_what_one_gives(monkeypatch):
    monkeypatch.setattr(molecules, "_WORTH_A_PROCESS", 60)  # the first round of reading, not what is missing after it
    called = []
    elsewhere = molecules._read_elsewhere
    monkeypatch.setattr(molecules, "_read_elsewhere", lambda rows: called.append(len(rows)) or elsewhere(rows))
    one, two = molecules._built(60, processes=1), molecules._built(60, processes=2)
    assert len(called) == 1
    same(one, two)
    assert one.removed == two.removed


def test_without_a_second_process_the_first_does_its_work(monkeypatch):
    rows = ["CCO", "C(C)O", "[Na+].[Cl-]", "C"]
    monkeypatch.setattr(sys, "executable", "no-such-python")
    with molecules._read_elsewhere(rows) as rest:
        found = rest()
    assert found["canonical"] == ["CCO", "CCO", "", ""] and found["smiles"] == ["CCO"]
    assert found["reasons"] == ["", "", "salt or mixture", "no bond"]


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CC.O", "salt or mixture"),
        ("C1CC", "unparsable"),
        ("", "unparsable"),
        ("C", "no bond"),
        ("C[Mg]C", "other element"),
        ("C~C", "other bond"),
        ("OO", "no carbon"),
        ("C" * 41, "more than 40 heavy atoms"),
        ("[13CH3]C", "isotope"),
        ("C[CH2]", "radical"),
        ("CC(=O)[O-]", "charged"),
        ("C[N+](=O)[O-]", ""),
    ],
)
def test_what_is_left_out(smiles, reason):
    assert molecules._read_rows([smiles])["reasons"] == [reason]


def test_rdkit_is_quiet(capfd):
    molecules._read_rows(["C1CC", "C(C)(C)(C)(C)C"])
    with pytest.raises(base.CourseError):
        molecules.featurise(["C1CC"])
    assert capfd.readouterr().err == ""


def test_records_that_disagree_are_not_used(monkeypatch):
    table = {  # cis and trans are one molecule; of two more pairs one agrees
        "C/C=C/C": (1, 300.0),
        r"C/C=C\C": (2, 320.0),
        "C/C=C/CC": (3, 300.0),
        r"C/C=C\CC": (4, 308.0),
    }
    lines = [["", str(cas), "", "", smiles, "", "", "name", ""] for smiles, (cas, _) in table.items()]
    known = {"boiling": dict(table.values()), "melting": {}, "logp": {}, "permittivity": {}}
    monkeypatch.setattr(molecules, "_lines", lambda path: iter(lines if "large" in path.name else []))
    monkeypatch.setattr(molecules, "_values", lambda folder: (known, {"boiling": {1}}))
    built = molecules._built(None, processes=1)
    assert built.smiles == ("CC=CC", "CC=CCC")
    assert built.properties["boiling"].isnan().tolist() == [True, False] and built.properties["boiling"][1] == 304
    assert built.removed == {"duplicate": 2, "boiling disagrees": 1, "boiling out of range": 1}


def test_select_packs_anew(data):
    chosen = data.select(torch.tensor([7, 2, 7]))
    alone = [data.select(torch.tensor([index])) for index in (7, 2, 7)]
    assert chosen.smiles == (data.smiles[7], data.smiles[2], data.smiles[7])
    first = 0
    for index, one in enumerate(alone):
        here = chosen.graph == index
        assert torch.equal(chosen.atoms[here], one.atoms)
        edges = here[chosen.edges[0]]
        assert torch.equal(chosen.edges[:, edges], one.edges + first)
        assert torch.equal(chosen.bonds[edges], one.bonds)
        first += int(one.sizes)
    same(data.select(torch.arange(len(data))), data)
    assert len(data.select(torch.tensor([], dtype=torch.int64))) == 0


def test_parts_share_no_scaffold_and_hold_every_molecule(data):
    parts = [data.part(name) for name in molecules.PARTS]
    assert sum(map(len, parts)) == len(data) and min(map(len, parts)) > 0
    scaffolds = [set(part.scaffolds.tolist()) for part in parts]
    assert not any(scaffolds[a] & scaffolds[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    common = {name for name in data.scaffold_names if name in molecules.COMMON}
    assert common and {data.scaffold_names[number] for number in scaffolds[0]} >= common
    with pytest.raises(base.UnknownName, match="Did you mean 'train'"):
        data.part("training")


def test_featurise_gives_what_load_gives(data):
    mine = molecules.featurise(data.smiles[:20], data.names[:20])
    theirs = data.select(torch.arange(20))
    for field in ("atoms", "edges", "bonds", "graph", "descriptors", "fingerprints", "parts"):
        assert torch.equal(getattr(mine, field), getattr(theirs, field)), field
    assert mine.smiles == theirs.smiles and mine.properties == {}


def test_aspirin_atom_by_atom():
    aspirin = molecules.featurise(["CC(=O)Oc1ccccc1C(=O)O"], ["aspirin"])
    assert aspirin.names == ("aspirin",) and aspirin.scaffold_names == ("c1ccccc1",)
    assert aspirin.atoms.shape == (13, 7) and aspirin.edges.shape == (2, 26)
    element, _, charge, hydrogens, _, aromatic, ring = aspirin.atoms.long().T
    assert (element == molecules.ELEMENTS.index("O")).sum() == 4
    assert hydrogens.sum() == 8 and aromatic.sum() == ring.sum() == 6 and (charge == 2).all()
    assert aspirin.bonds[:, 0].bincount().tolist() == [10, 4, 0, 12]


def test_stereochemistry_is_dropped_and_isomers_stay_together():
    both = molecules.featurise(["C/C=C/C", r"C/C=C\C", "CCCCO", "CC(C)CO", "CC"])
    assert both.smiles[0] == both.smiles[1] == "CC=CC"
    assert both.scaffolds[2] == both.scaffolds[3] != both.scaffolds[4]
    assert both.scaffold_names[both.scaffolds[2]] == "acyclic CCCCO"
    assert both.names == ("C/C=C/C", r"C/C=C\C", "CCCCO", "CC(C)CO", "CC")


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        (["CCO", ""], "molecule 1 of 2, '', cannot be used: it is empty"),
        (["C1CC"], "molecule 0 of 1, 'C1CC', cannot be used: RDKit cannot read it"),
        (["CC", "CO", "O"], "molecule 2 of 3, 'O', cannot be used: it has no bond"),
        (["C[Mg]C"], "an element other than B, C, N"),
        (["C~C"], "a bond that is not single"),
    ],
)
def test_featurise_names_the_first_bad_one(smiles, message):
    with pytest.raises(base.CourseError, match=message):
        molecules.featurise(smiles)


def test_bad_arguments():
    with pytest.raises(base.CourseError, match="2 names for 1 SMILES"):
        molecules.featurise(["CC"], ["a", "b"])
    with pytest.raises(base.CourseError, match="count is at least 1"):
        molecules.load(0)
    with pytest.raises(base.CourseError, match="cannot read 'C1CC'"):
        molecules.draw("C1CC")


def test_draw():
    picture = molecules.draw("c1ccccc1O", size=(120, 80))
    assert picture.shape == (80, 120, 3)
    assert (picture[0, 0] == 255).all() and 0.01 < (picture < 128).any(2).mean() < 0.5


@pytest.mark.parametrize(
    ("common", "systematic", "name"),
    [("aspirin", "long", "aspirin"), ("stk366316", "long", "long"), ("354-96-1", "long", "long"), ("", "long", "long")],
)
def test_names(common, systematic, name):
    assert molecules._name(common, systematic) == name


def test_rdkit_is_imported_only_when_used():
    code = "import sys; from pfmcourse.data import molecules; print('rdkit' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
