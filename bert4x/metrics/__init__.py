"""Scores of predictions: sets of spans and triples (F1), and texts (ROUGE, BLEU). Python only, no backend."""

from bert4x.metrics.bleu import Bleu, bleu
from bert4x.metrics.classes import ClassScores, score_classes
from bert4x.metrics.rouge import Rouge, rouge
from bert4x.metrics.spans import Counts, Entity, count, count_by_label, count_entities, count_triples, find_entities
from bert4x.metrics.vectors import energy_distance, frechet_distance, retrieval, sts

__all__ = [
    "Bleu",
    "ClassScores",
    "Counts",
    "Entity",
    "Rouge",
    "bleu",
    "count",
    "count_by_label",
    "count_entities",
    "count_triples",
    "energy_distance",
    "find_entities",
    "frechet_distance",
    "retrieval",
    "rouge",
    "score_classes",
    "sts",
]
