"""The history is complete, consistent, and refused with a helpful message when damaged."""

import re
from collections import Counter

import pytest

from pfmcourse import timeline
from pfmcourse.base import CourseError, UnknownName

# The ids of the 31 lessons.
LESSONS = {
    "start_here",
    "transfer_learning",
    "word_vectors",
    "contextual_vectors",
    "transformer",
    "gpt",
    "bert",
    "beyond_bert",
    "scaling",
    "mixture_of_experts",
    "alignment",
    "vit",
    "hierarchical_vit",
    "simclr",
    "dino",
    "mae",
    "graph_embeddings",
    "graph_pretraining",
    "speech_contrastive",
    "speech_masked",
    "video",
    "other_modalities",
    "clip",
    "fusion",
    "dalle",
    "unified",
    "knowledge",
    "efficiency",
    "security_privacy",
    "bias_interpretation",
    "history",
}

# The systems that the course promises to build, by the lesson that builds them.
PROMISED = {
    "transfer_learning": "AlexNet VGG GoogLeNet ResNet NASNet EfficientNet",
    "word_vectors": "NNLM Word2Vec GloVe",
    "contextual_vectors": "Skip-thought ELMo ULMFiT",
    "transformer": "Transformer",
    "gpt": "GPT GPT-2",
    "bert": "BERT RoBERTa",
    "beyond_bert": "XLNet T5 BART ELECTRA",
    "scaling": "GPT-3",
    "mixture_of_experts": "GShard",
    "alignment": "InstructGPT ChatGPT DPO",
    "vit": "ViT DeiT",
    "hierarchical_vit": "PVT Swin",
    "simclr": "SimCLR MoCo",
    "dino": "SwAV DINO BYOL",
    "mae": "MAE BEiT iBOT",
    "graph_embeddings": "DeepWalk node2vec GCN GAT DGI GPT-GNN",
    "graph_pretraining": "GraphCL GraphMAE",
    "speech_contrastive": "CPC wav2vec VQ-wav2vec",
    "speech_masked": "HuBERT SpeechFormer",
    "video": "MoCoGAN Act2Vec",
    "clip": "CLIP",
    "fusion": "UNITER",
    "dalle": "DALL-E",
    "unified": "OFA Unified-IO FLAVA BEiT-3",
    "knowledge": "TransE ERNIE KEPLER",
}


def test_every_promised_system_has_an_entry_in_its_lesson():
    for lesson, names in PROMISED.items():
        assert set(names.split()) <= {entry.name for entry in timeline.of_lesson(lesson)}, lesson


def test_entries_are_unique_sorted_and_dated_within_the_history():
    entries = timeline.entries()
    assert max(Counter(entry.name.lower() for entry in entries).values()) == 1
    assert max(Counter(entry.paper.title.lower() for entry in entries).values()) == 1
    years = [entry.year for entry in entries]
    assert years == sorted(years)
    assert (entries[0].name, years[0]) == ("NNLM", 2003)
    assert years[-1] == 2023
    assert len(entries) >= 60


def test_fields_are_well_formed():
    for entry in timeline.entries():
        assert entry.modality in timeline.MODALITIES
        assert entry.kind in timeline.KINDS
        assert entry.lesson is None or entry.lesson in LESSONS, entry.name
        assert 10 <= len(entry.idea) <= 90, entry.name
        assert not entry.idea.endswith("."), entry.name
        assert entry.paper.year == entry.year
        assert re.fullmatch(r"OpenAI|\S.* et al\.|\S+ and \S.*", entry.paper.authors), entry.name
        assert entry.paper.title == entry.paper.title.strip(" .")
    assert {entry.modality for entry in timeline.entries()} == set(timeline.MODALITIES)
    assert {entry.kind for entry in timeline.entries()} == set(timeline.KINDS)


@pytest.mark.parametrize(
    ("name", "year", "kind", "authors"),
    [
        ("Word2Vec", 2013, "generative", "Mikolov et al."),
        ("Transformer", 2017, "supervised", "Vaswani et al."),
        ("BERT", 2018, "generative", "Devlin et al."),
        ("SimCLR", 2020, "contrastive", "Chen et al."),
        ("CLIP", 2021, "contrastive", "Radford et al."),
    ],
)
def test_known_landmarks(name, year, kind, authors):
    entry = timeline.entry(name)
    assert (entry.year, entry.kind, entry.paper.authors) == (year, kind, authors)


def test_a_paper_is_cited_in_one_line():
    assert str(timeline.entry("GPT-3").paper) == "Brown et al. (2020). Language Models are Few-Shot Learners."


def test_unknown_system_suggests_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'RoBERTa'"):
        timeline.entry("RoBERT")
    assert timeline.of_lesson("efficiency") == ()


GOOD = {
    "name": '"A"', "year": "2001", "modality": '"vision"', "kind": '"supervised"', "idea": '"an idea"',
    "authors": '"X et al."', "title": '"T"',
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"year": '"2001"'}, "'year' should be int"),
        ({"title": None}, "'title' should be str"),
        ({"modality": '"visions"'}, "Did you mean 'vision'"),
        ({"kind": '"unsupervised"'}, "Did you mean 'supervised'"),
        ({"lessons": '"vit"'}, "Did you mean 'lesson'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, match):
    path = tmp_path / "history.toml"
    rows = {**GOOD, **change}
    path.write_text("[[entry]]\n" + "\n".join(f"{k} = {v}" for k, v in rows.items() if v is not None), encoding="utf-8")
    with pytest.raises(CourseError, match=match):
        timeline.entries(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [("[[entry", "could not be read"), ("", "could not be read"), ("twice", "names A more than once")],
)
def test_a_damaged_file_is_refused(tmp_path, text, match):
    path = tmp_path / "history.toml"
    one = "[[entry]]\n" + "\n".join(f"{key} = {value}" for key, value in GOOD.items()) + "\n"
    path.write_text(one * 2 if text == "twice" else text, encoding="utf-8")
    with pytest.raises(CourseError, match=match):
        timeline.entries(path)
