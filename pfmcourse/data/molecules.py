"""Small organic molecules as graphs, with properties that people measured, descriptors, fingerprints and scaffolds.

The structures are PubChem's, in two tables of 73,162 chemicals together inside the package chemicals. What was measured
comes from smaller tables of the same package, the first that has a value: boiling points from the CRC Handbook, then
the NIST WebBook; melting points from the CRC Handbook, then Bradley's Open Melting Point Dataset, then the WebBook;
logP (how much more a substance likes octanol than water, as log10 of the ratio) from Syracuse Research; permittivity
from the CRC Handbook. The package's Yaws table of boiling points is not used: it holds absurd values (3,773 K).

**What is left out**, with the number of rows in `Molecules.removed`: salts and mixtures, what RDKit cannot read, single
atoms, elements outside `ELEMENTS`, molecules without carbon or with more than 40 heavy atoms, isotopes, radicals, ions.
Stereochemistry is dropped, because a graph does not show it; then rows with the same graph are one molecule and bring
their values together. Boiling points above 900 K, melting points above 1,000 K and values that are not positive are no
values; where two records of one molecule differ by more than 10 K, that property is unknown for it, otherwise it is
their mean.

**Split by scaffold, never by row.** Molecules with the same ring system (Bemis and Murcko 1996, "The properties of
known drugs. 1. Molecular frameworks") are near relatives; here they are in the same part. A molecule without rings
belongs with its isomers. The hash of the scaffold's name decides, so a molecule is in the same part however many are
loaded. The scaffolds in `COMMON` are always in train, so that no family rules a held-out part.

The descriptors leave out Crippen's logP and everything else that is made from his contributions, so that they do not
hand logP over.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import math
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("molecules",)

RDKIT = "rdkit==2026.9.1"

ELEMENTS = ("B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I")
ATOM_FIELDS = {  # name -> number of values
    "element": 11,  # which of `ELEMENTS`
    "neighbours": 6,  # bonds to heavy atoms; 5 stands for more, too
    "charge": 5,  # 0 for -2 or less, 2 for none, 4 for +2 or more
    "hydrogens": 5,  # 4 stands for more, too
    "hybridisation": 4,  # sp, sp2, sp3, any other
    "aromatic": 2,
    "ring": 2,
}
BOND_FIELDS = {"order": 4, "conjugated": 2, "ring": 2}  # order: single, double, triple, aromatic
PROPERTIES = ("boiling", "melting", "logp", "permittivity")
PARTS = ("train", "validation", "test")

HEAVY = 40  # atoms, hydrogens not counted
FINGERPRINT = 2048
HIGHEST = {"boiling": 900.0, "melting": 1000.0}  # K
DISAGREE = 10.0  # K between two records of one molecule
ROOM = (285.0, 310.0)  # K, where a permittivity counts

# Scaffolds of more than 300 of the 52,359 molecules that load(None) gives.
COMMON = (
    "c1ccccc1",
    "c1ccc2ccccc2c1",
    "C1CCCCC1",
    "c1ccncc1",
    "c1ccc(-c2ccccc2)cc1",
    "acyclic CCCCCCCCCCCC",
    "c1ccc(Cc2ccccc2)cc1",
    "c1ccc(N=Nc2ccccc2)cc1",
    "C1=CCCCC1",
)
TEST, VALIDATION = 0.2, 0.1  # shares of all other scaffolds

_IDENTIFIERS = (
    "Identifiers/chemical identifiers pubchem small.tsv",  # the best known
    "Identifiers/chemical identifiers pubchem large.tsv",  # all others
)
_CRC = "Misc/Physical Constants of Organic Compounds.csv"
_WEBBOOK = "Misc/webbook_constants.tsv"
_OPEN_NOTEBOOK = "Phase Change/OpenNotebook Melting Points.tsv"
_LOGP = "Environment/Syrres logP data.csv.gz"
_PERMITTIVITY = "Electrolytes/Permittivity (Dielectric Constant) of Liquids.tsv"
_TABLES = {  # property -> (file, column), the most trusted first
    "boiling": ((_CRC, "Tb"), (_WEBBOOK, "Tb")),
    "melting": ((_CRC, "Tm"), (_OPEN_NOTEBOOK, "Tm"), (_WEBBOOK, "Tm")),
    "logp": ((_LOGP, "logP"),),
    "permittivity": ((_PERMITTIVITY, "Permittivity"),),
}
# Crippen's two would hand logP over. The other four are the slowest of those left, and much like some that stay.
_LEFT_OUT = ("CrippenClogP", "CrippenMR", "NumRotatableBonds", "NumHBA", "chi4v", "chi4n")
_WORTH_A_PROCESS = 3000  # rows; a second process takes two seconds to start


def _runs(first: Int64[Tensor, " runs"], length: Int64[Tensor, " runs"]) -> Int64[Tensor, " total"]:
    """The numbers ``first``, ``first + 1``, ... of every run, one run after the other."""
    shift = first - (length.cumsum(0) - length)
    return torch.repeat_interleave(shift, length) + torch.arange(int(length.sum()))


@dataclass(frozen=True)
class Molecules:
    """Molecules as one large graph, in pieces; hydrogens are not atoms of it, they are counted at their neighbour.

    ``smiles`` are canonical, without stereochemistry; their atoms are in the order of ``atoms``, whose columns are
    `ATOM_FIELDS`. ``edges`` has every bond both ways, source above target, numbered through the whole set and sorted by
    molecule; ``bonds`` has the columns `BOND_FIELDS`. ``graph`` says which molecule an atom is in. ``fingerprints`` are
    Morgan's of radius 2: a 1 says that some piece of a molecule is there. ``scaffolds`` numbers ``scaffold_names``.
    ``parts`` is 0 for train, 1 for validation, 2 for test.

    ``properties`` are NaN where unknown: ``boiling`` and ``melting`` in K, ``logp``, and ``permittivity`` as log10 of
    the relative permittivity of the liquid near 293 K. ``removed`` counts the table's rows that a reason kept out, and
    the values that were dropped; in ``filled`` is how many descriptors RDKit could not compute and are 0 instead.
    """

    smiles: tuple[str, ...]
    names: tuple[str, ...]
    atoms: UInt8[Tensor, "atoms 7"]
    edges: Int64[Tensor, "2 edges"]
    bonds: UInt8[Tensor, "edges 3"]
    graph: Int64[Tensor, " atoms"]
    descriptors: Float32[Tensor, "molecules descriptors"]
    descriptor_names: tuple[str, ...]
    fingerprints: UInt8[Tensor, "molecules 2048"]
    scaffolds: Int64[Tensor, " molecules"]
    scaffold_names: tuple[str, ...]
    parts: Int64[Tensor, " molecules"]
    properties: Mapping[str, Float32[Tensor, " molecules"]]
    removed: Mapping[str, int]
    filled: int = 0

    def __len__(self) -> int:
        return len(self.smiles)

    @property
    def sizes(self) -> Int64[Tensor, " molecules"]:
        """Heavy atoms of each molecule."""
        return torch.bincount(self.graph, minlength=len(self))

    def select(self, indices: Int64[Tensor, " chosen"]) -> "Molecules":
        """These molecules only, in this order, their atoms numbered anew. Scaffolds keep their numbers."""
        sizes, degrees = self.sizes, torch.bincount(self.graph[self.edges[0]], minlength=len(self))
        starts, edge_starts = sizes.cumsum(0) - sizes, degrees.cumsum(0) - degrees
        size, degree = sizes[indices], degrees[indices]
        atoms, edges = _runs(starts[indices], size), _runs(edge_starts[indices], degree)
        moved = size.cumsum(0) - size - starts[indices]
        chosen = indices.tolist()
        return Molecules(
            smiles=tuple(self.smiles[index] for index in chosen),
            names=tuple(self.names[index] for index in chosen),
            atoms=self.atoms[atoms],
            edges=self.edges[:, edges] + torch.repeat_interleave(moved, degree),
            bonds=self.bonds[edges],
            graph=torch.repeat_interleave(torch.arange(len(chosen)), size),
            descriptors=self.descriptors[indices],
            descriptor_names=self.descriptor_names,
            fingerprints=self.fingerprints[indices],
            scaffolds=self.scaffolds[indices],
            scaffold_names=self.scaffold_names,
            parts=self.parts[indices],
            properties={name: values[indices] for name, values in self.properties.items()},
            removed=self.removed,
            filled=self.filled,
        )

    def part(self, name: str) -> "Molecules":
        """The molecules of ``train``, ``validation`` or ``test``; no scaffold is in two parts."""
        if name not in PARTS:
            raise base.unknown_name("part", name, PARTS)
        return self.select(torch.nonzero(self.parts == PARTS.index(name)).flatten())


# From a line of text to numbers --------------------------------------------------------------------------------------


@functools.cache
def _rdkit() -> SimpleNamespace:
    """What the reading needs of RDKit, made ready once a process."""
    chem = base.require("rdkit.Chem", RDKIT, "reading molecules")
    facts = base.require("rdkit.Chem.rdMolDescriptors", RDKIT, "describing molecules")
    fingerprints = base.require("rdkit.Chem.rdFingerprintGenerator", RDKIT, "fingerprints of molecules")
    properties = facts.Properties([name for name in facts.Properties.GetAvailableProperties() if name not in _LEFT_OUT])
    hybrid, bond = chem.HybridizationType, chem.BondType
    return SimpleNamespace(
        chem=chem,
        facts=facts,
        quiet=base.require("rdkit.rdBase", RDKIT, "reading molecules").BlockLogs,
        scaffold=base.require("rdkit.Chem.Scaffolds.MurckoScaffold", RDKIT, "scaffolds").MurckoScaffoldSmiles,
        properties=properties,
        names=(
            *properties.GetPropertyNames(),
            *(f"PEOE_VSA{number}" for number in range(1, 15)),
            *(f"MQN{number}" for number in range(1, 43)),
            *(f"AUTOCORR2D_{number}" for number in range(1, 193)),
        ),
        morgan=fingerprints.GetMorganGenerator(radius=2, fpSize=FINGERPRINT),
        element={chem.GetPeriodicTable().GetAtomicNumber(name): number for number, name in enumerate(ELEMENTS)},
        hybridisation={hybrid.SP: 0, hybrid.SP2: 1, hybrid.SP3: 2},
        order={bond.SINGLE: 0, bond.DOUBLE: 1, bond.TRIPLE: 2, bond.AROMATIC: 3},
    )


def _parsed(smiles: str) -> Any:
    """RDKit's molecule, or, where it cannot be one of our graphs, the reason as a string."""
    tools = _rdkit()
    molecule = tools.chem.MolFromSmiles(smiles) if smiles.strip() else None
    if molecule is None:
        return "unparsable"
    if not molecule.GetNumBonds():
        return "no bond"
    if not {atom.GetAtomicNum() for atom in molecule.GetAtoms()} <= tools.element.keys():
        return "other element"
    if not {bond.GetBondType() for bond in molecule.GetBonds()} <= tools.order.keys():
        return "other bond"
    return molecule


def _unwanted(smiles: str, molecule: Any) -> str:
    """Why a molecule of the table is left out, though it could be a graph; empty if it is not."""
    if molecule.GetNumAtoms() > HEAVY:
        return f"more than {HEAVY} heavy atoms"
    if not any(atom.GetAtomicNum() == 6 for atom in molecule.GetAtoms()):
        return "no carbon"
    if "[" not in smiles:  # only what is in brackets can be an isotope, a radical or charged
        return ""
    if any(atom.GetIsotope() for atom in molecule.GetAtoms()):
        return "isotope"
    if any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        return "radical"
    return "charged" if _rdkit().chem.GetFormalCharge(molecule) else ""


def _canonical(molecule: Any) -> str:
    """The SMILES that all molecules with this graph share. Drops the stereochemistry of ``molecule``."""
    chem = _rdkit().chem
    chem.RemoveStereochemistry(molecule)
    return chem.MolToSmiles(molecule)


def _described(molecule: Any) -> tuple[Float32[np.ndarray, " descriptors"], int]:
    """All descriptors of one molecule, and how many of them are 0 because RDKit could not compute them."""
    tools = _rdkit()
    values = [*tools.properties.ComputeProperties(molecule), *tools.facts.PEOE_VSA_(molecule)]
    values += tools.facts.MQNs_(molecule)
    try:
        values += tools.facts.CalcAUTOCORR2D(molecule)
    except (RuntimeError, ValueError):  # an atom that Gasteiger's charges have no parameters for
        values += [math.nan] * 192
    described = np.array(values, dtype=np.float32)
    bad = ~np.isfinite(described)
    described[bad] = 0.0
    return described, int(bad.sum())


def _scaffold(molecule: Any) -> str:
    """The ring systems and what links them; for a molecule without rings its elements, which isomers share."""
    if molecule.GetRingInfo().NumRings():
        return _rdkit().scaffold(mol=molecule)
    return "acyclic " + "".join(sorted(atom.GetSymbol() for atom in molecule.GetAtoms()))


def _features(molecules: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Everything that is computed from canonical SMILES and the molecules read from them, as arrays.

    Atoms are numbered within their molecule.
    """
    tools = _rdkit()
    element, hybridisation, order = tools.element, tools.hybridisation, tools.order
    atoms, sizes, edges, bonds, degrees, descriptors, fingerprints, scaffolds = ([] for _ in range(8))
    texts, filled = [], 0
    for text, molecule in molecules:
        texts.append(text)
        atoms += [
            (
                element[atom.GetAtomicNum()],
                min(atom.GetDegree(), 5),
                min(max(atom.GetFormalCharge() + 2, 0), 4),
                min(atom.GetTotalNumHs(), 4),
                hybridisation.get(atom.GetHybridization(), 3),
                atom.GetIsAromatic(),
                atom.IsInRing(),
            )
            for atom in molecule.GetAtoms()
        ]
        sizes.append(molecule.GetNumAtoms())
        for bond in molecule.GetBonds():
            one, other = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            fields = (order[bond.GetBondType()], bond.GetIsConjugated(), bond.IsInRing())
            edges += [(one, other), (other, one)]
            bonds += [fields, fields]
        degrees.append(2 * molecule.GetNumBonds())
        values, bad = _described(molecule)
        descriptors.append(values)
        filled += bad
        fingerprints.append(np.packbits(tools.morgan.GetFingerprintAsNumPy(molecule)))
        scaffolds.append(_scaffold(molecule))
    return {
        "smiles": texts,
        "atoms": np.array(atoms, dtype=np.uint8).reshape(-1, len(ATOM_FIELDS)),
        "sizes": np.array(sizes, dtype=np.int64),
        "edges": np.array(edges, dtype=np.int32).reshape(-1, 2),
        "bonds": np.array(bonds, dtype=np.uint8).reshape(-1, len(BOND_FIELDS)),
        "degrees": np.array(degrees, dtype=np.int64),
        "descriptors": np.array(descriptors, dtype=np.float32).reshape(-1, len(tools.names)),
        "fingerprints": np.array(fingerprints, dtype=np.uint8).reshape(-1, FINGERPRINT // 8),
        "scaffolds": scaffolds,
        "filled": filled,
    }


def _part(scaffold: str) -> int:
    """The part that the molecules with this scaffold are in."""
    if scaffold in COMMON:
        return 0
    place = int(hashlib.sha256(scaffold.encode()).hexdigest()[:8], 16) / 2**32
    return 2 if place < TEST else 1 if place < TEST + VALIDATION else 0


def _assembled(features: Mapping[str, Any], names: Sequence[str]) -> Molecules:
    """Molecules from the arrays of `_features`, their atoms numbered through the whole set."""
    sizes, degrees = torch.from_numpy(features["sizes"]), torch.from_numpy(features["degrees"])
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, degrees)
    number = {name: index for index, name in enumerate(dict.fromkeys(features["scaffolds"]))}
    parts = [_part(name) for name in number]
    scaffolds = [number[name] for name in features["scaffolds"]]
    return Molecules(
        smiles=tuple(features["smiles"]),
        names=tuple(names),
        atoms=torch.from_numpy(features["atoms"]),
        edges=(torch.from_numpy(features["edges"]).long() + starts[:, None]).T.contiguous(),
        bonds=torch.from_numpy(features["bonds"]),
        graph=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        descriptors=torch.from_numpy(features["descriptors"]),
        descriptor_names=_rdkit().names,
        fingerprints=torch.from_numpy(np.unpackbits(features["fingerprints"], axis=1)),
        scaffolds=torch.tensor(scaffolds, dtype=torch.int64),
        scaffold_names=tuple(number),
        parts=torch.tensor([parts[index] for index in scaffolds], dtype=torch.int64),
        properties={},
        removed={},
        filled=features["filled"],
    )


_EXPECTED = {
    "unparsable": "RDKit cannot read it as SMILES",
    "no bond": "it has no bond, so it is no graph that messages could run along",
    "other element": f"it has an element other than {', '.join(ELEMENTS)}",
    "other bond": "it has a bond that is not single, double, triple or aromatic",
}


def featurise(smiles: Sequence[str], names: Sequence[str] | None = None) -> Molecules:
    """The reader's own molecules, in the same form as those of `load`, without properties.

    Stereochemistry is dropped and each SMILES is replaced by the canonical one, with the atoms in its order. ``names``
    are the SMILES as given if there are none. Raises CourseError for the first SMILES that cannot be read, is empty,
    has no bond, or has an element outside `ELEMENTS`.
    """
    if names is not None and len(names) != len(smiles):
        raise base.CourseError(f"{len(names)} names for {len(smiles)} SMILES; give one name for each, or none.")
    canonical = []
    with _rdkit().quiet():
        for place, text in enumerate(smiles):
            found = _parsed(text)
            if isinstance(found, str):
                why = _EXPECTED[found] if text.strip() else "it is empty"
                raise base.CourseError(
                    f"molecule {place} of {len(smiles)}, {text!r}, cannot be used: {why}. "
                    "An example of a SMILES that can: 'CCO' (ethanol)."
                )
            canonical.append(_canonical(found))
        again = ((text, _rdkit().chem.MolFromSmiles(text)) for text in canonical)
        return _assembled(_features(again), smiles if names is None else names)


# The table -----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[list[str]]:
    """The rows of a table parted by tabs."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n").split("\t")


def _digits(cas: str) -> int:
    """A CAS number without its dashes: some tables write 50-00-0, some 50000."""
    return int(cas.replace("-", ""))


def _measured(folder: Path, file: str, column: str) -> Iterator[tuple[int, float]]:
    """CAS number and value of every row that has one."""
    rows = _lines(folder / file)
    place = next(rows).index(column)
    for row in rows:
        if len(row) > place and row[place]:
            yield _digits(row[0]), float(row[place])


def _permittivities(folder: Path) -> dict[int, float]:
    """log10 of the permittivity at the temperature nearest to 293.15 K of those within `ROOM`."""
    rows = _lines(folder / _PERMITTIVITY)
    head = next(rows)
    kelvin, permittivity = head.index("T"), head.index("Permittivity")
    nearest: dict[int, tuple[float, float]] = {}
    for row in rows:
        if row[kelvin] and row[permittivity] and ROOM[0] <= float(row[kelvin]) <= ROOM[1]:
            found = abs(float(row[kelvin]) - 293.15), math.log10(float(row[permittivity]))
            nearest[_digits(row[0])] = min(found, nearest.get(_digits(row[0]), found))
    return {cas: value for cas, (_, value) in nearest.items()}


def _values(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, set[int]]]:
    """For each property: the value of each CAS number, and the CAS numbers that had one out of range."""
    values: dict[str, dict[int, float]] = {"permittivity": _permittivities(folder)}
    absurd: dict[str, set[int]] = {}
    for name in ("boiling", "melting", "logp"):
        known: dict[int, float] = {}
        outside: set[int] = set()
        for file, column in _TABLES[name]:
            for cas, value in _measured(folder, file, column):
                if name in HIGHEST and not 0 < value <= HIGHEST[name]:
                    outside.add(cas)
                else:
                    known.setdefault(cas, value)
        values[name], absurd[name] = known, outside
    return values, absurd


def _name(common: str, systematic: str) -> str:
    """The common name, unless it is missing or a number such as stk366316 or 354-96-1."""
    return systematic if not common or (systematic and re.search(r"\d{4}|^[\d-]+$", common)) else common


def _read_rows(smiles: Sequence[str]) -> dict[str, Any]:
    """For each row its canonical SMILES and the reason it is left out, one of them empty; and `_features` of the rest.

    Each canonical SMILES is computed once, where it comes first.
    """
    chem = _rdkit().chem
    canonical, reasons = [], []

    def new() -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for text in smiles:
            found = "salt or mixture" if "." in text else _parsed(text)
            reason = found if isinstance(found, str) else _unwanted(text, found)
            name = "" if reason else _canonical(found)
            again = None if reason or name in seen else chem.MolFromSmiles(name)
            if name and name not in seen and again is None:  # RDKit does not always read what it wrote
                name, reason = "", "unparsable"
            canonical.append(name)
            reasons.append(reason)
            if again is not None:
                seen.add(name)
                yield name, again

    with _rdkit().quiet():
        return {**_features(new()), "canonical": canonical, "reasons": reasons}


def _serve() -> None:
    """The life of the second process: rows in, features out."""
    sys.stdout.buffer.write(pickle.dumps(_read_rows(pickle.load(sys.stdin.buffer))))


@contextlib.contextmanager
def _read_elsewhere(smiles: Sequence[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """`_read_rows` in another process, or in this one if there cannot be another; what is given waits for the result.

    A process of its own and not one of multiprocessing's: those run the reader's script again, with its training.
    Rows and result go through files, so that neither process waits for the other to take them.
    """
    with tempfile.TemporaryFile() as rows, tempfile.TemporaryFile() as read:
        pickle.dump(list(smiles), rows)
        rows.seek(0)
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", "from pfmcourse.data import molecules; molecules._serve()"],
                stdin=rows,
                stdout=read,
                stderr=subprocess.DEVNULL,
                cwd=base.repository(),
            )
        except OSError:
            yield lambda: _read_rows(smiles)
            return

        def result() -> dict[str, Any]:
            if process.wait():
                return _read_rows(smiles)
            read.seek(0)
            return pickle.load(read)

        try:
            yield result
        finally:
            process.kill()
            process.wait()


def _read_parts(smiles: Sequence[str], processes: int) -> list[dict[str, Any]]:
    """`_read_rows` of all rows, by one process or by two; the pieces are in the order of the rows."""
    if processes < 2 or len(smiles) < _WORTH_A_PROCESS:
        return [_read_rows(smiles)]
    middle = round(0.53 * len(smiles))  # the other process has to start first
    with _read_elsewhere(smiles[middle:]) as rest:
        return [_read_rows(smiles[:middle]), rest()]


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pieces of `_read_rows` as one."""
    whole: dict[str, Any] = {}
    for name, first in parts[0].items():
        pieces = [part[name] for part in parts]
        if isinstance(first, np.ndarray):
            whole[name] = np.concatenate(pieces)
        else:
            whole[name] = sum(pieces, type(first)())
    return whole


def _built(count: int | None, processes: int) -> Molecules:
    """The first ``count`` molecules, those with a known property before all others, in the table's order."""
    folder = source.verified(CARD[0])
    values, absurd = _values(folder)
    table = [
        (_digits(row[1]), row[4], _name(row[8] if len(row) > 8 else "", row[7]))
        for file in _IDENTIFIERS
        for row in _lines(folder / file)
    ]
    known = set().union(*values.values())
    first = [(cas not in known, hashlib.sha256(str(cas).encode()).digest()) for cas, _, _ in table]
    order = sorted(range(len(table)), key=first.__getitem__)

    wanted = len(table) if count is None else count
    members: dict[str, list[int]] = {}  # canonical SMILES -> its rows
    removed: Counter[str] = Counter()
    parts: list[dict[str, Any]] = []
    done = 0
    while len(members) < wanted and done < len(order):
        missing = wanted - len(members)
        rows = order[done : done + missing + missing // 8]
        pieces = _read_parts([table[row][1] for row in rows], processes)
        parts += pieces
        found = _joined([{name: piece[name] for name in ("canonical", "reasons")} for piece in pieces])
        for row, canonical, reason in zip(rows, found["canonical"], found["reasons"], strict=True):
            if len(members) == wanted:
                break
            done += 1
            if reason or canonical in members:
                removed[reason or "duplicate"] += 1
            if canonical:
                members.setdefault(canonical, []).append(row)
            for name in absurd:
                removed[f"{name} out of range"] += table[row][0] in absurd[name]

    everything = _joined(parts)
    place = {canonical: index for index, canonical in reversed(list(enumerate(everything["smiles"])))}
    kept = sorted(members, key=lambda canonical: min(members[canonical]))
    names = [table[min(members[text])][2] if text in members else "" for text in everything["smiles"]]
    chosen = _assembled(everything, names).select(torch.tensor([place[text] for text in kept], dtype=torch.int64))
    properties = {}
    for name in PROPERTIES:
        settled = []
        for text in kept:
            records = [values[name][cas] for row in members[text] if (cas := table[row][0]) in values[name]]
            if name in HIGHEST and records and max(records) - min(records) > DISAGREE:
                removed[f"{name} disagrees"] += 1
                records = []
            settled.append(statistics.fmean(records) if records else math.nan)
        properties[name] = torch.tensor(settled, dtype=torch.float32)
    # Scaffolds are numbered by what is chosen, not by what was read to choose it.
    numbers, scaffolds = chosen.scaffolds.unique(return_inverse=True)
    used = tuple(chosen.scaffold_names[number] for number in numbers.tolist())
    filled = {**vars(chosen), "scaffolds": scaffolds, "scaffold_names": used}
    return Molecules(**filled | {"properties": properties, "removed": {key: n for key, n in removed.items() if n}})


# The cache keeps tensors only ----------------------------------------------------------------------------------------


def _as_bytes(texts: Iterable[str]) -> UInt8[Tensor, " bytes"]:
    return torch.frombuffer(bytearray("\n".join(texts).encode()), dtype=torch.uint8)


def _as_texts(content: UInt8[Tensor, " bytes"]) -> tuple[str, ...]:
    return tuple(content.numpy().tobytes().decode().split("\n"))


_TEXTS = ("smiles", "names", "descriptor_names", "scaffold_names")
_TENSORS = ("atoms", "edges", "bonds", "graph", "descriptors", "scaffolds", "parts")


def _packed(molecules: Molecules) -> dict[str, Tensor]:
    """The molecules as tensors for the cache, the fingerprints eight to a byte."""
    return {
        **{name: _as_bytes(getattr(molecules, name)) for name in _TEXTS},
        **{name: getattr(molecules, name) for name in _TENSORS},
        "fingerprints": torch.from_numpy(np.packbits(molecules.fingerprints.numpy(), axis=1)),
        "properties": torch.stack([molecules.properties[name] for name in PROPERTIES]),
        "counts": _as_bytes([json.dumps({"removed": dict(molecules.removed), "filled": molecules.filled})]),
    }


def _unpacked(tensors: Mapping[str, Tensor]) -> Molecules:
    """The opposite of `_packed`."""
    return Molecules(
        **{name: _as_texts(tensors[name]) for name in _TEXTS},
        **{name: tensors[name] for name in _TENSORS},
        fingerprints=torch.from_numpy(np.unpackbits(tensors["fingerprints"].numpy(), axis=1)),
        properties=dict(zip(PROPERTIES, tensors["properties"], strict=True)),
        **json.loads(_as_texts(tensors["counts"])[0]),
    )


@functools.lru_cache(maxsize=2)
def load(count: int | None = 26_000) -> Molecules:
    """``count`` molecules, or all 52,359 with ``count=None``, the best known substances first.

    Those with a known property come in first, then others; within both, the hash of the CAS number decides. Rows are
    read until there are enough molecules: `Molecules.removed` counts over the rows read, and a value that only an
    unread row has is unknown. The first call reads for about a minute, with two processes; the cache keeps the
    result. Raises CourseError for a count below 1.
    """
    if count is not None and count < 1:
        raise base.CourseError(f"{count} molecules cannot be loaded; count is at least 1, or None for all of them.")
    made_by = base.require("rdkit", RDKIT, "reading molecules").__version__
    key = {"sources": source.hashes(*CARD), "count": count, "made_by": f"rdkit {made_by}", "version": 1}
    return _unpacked(source.cached("molecules", key, lambda: _packed(_built(count, processes=2))))


def draw(smiles: str, size: tuple[int, int] = (220, 160)) -> UInt8[np.ndarray, "height width 3"]:
    """The structural formula as a colour picture on white; ``size`` is its width and height in pixels.

    Raises CourseError for a SMILES that cannot be read.
    """
    import io

    from PIL import Image

    drawing = base.require("rdkit.Chem.Draw.rdMolDraw2D", RDKIT, "drawing molecules")
    with _rdkit().quiet():
        molecule = _rdkit().chem.MolFromSmiles(smiles) if smiles.strip() else None
    if molecule is None:
        raise base.CourseError(f"RDKit cannot read {smiles!r} as SMILES. An example: 'CCO' (ethanol).")
    canvas = drawing.MolDraw2DCairo(*size)
    drawing.PrepareAndDrawMolecule(canvas, molecule)
    canvas.FinishDrawing()
    return np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"))
