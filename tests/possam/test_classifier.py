"""Open-vocabulary classification by cosine similarity."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from possam.classifier import CosineClassifier, cosine_logits
from possam.text_embeddings import ClassEmbeddings


def test_a_class_scores_its_best_synonym() -> None:
    """By hand in two dimensions: synonyms at 0° and 90° are one class, 180° another; the mask lies at 90°."""
    text = ClassEmbeddings(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]), torch.tensor([0, 0, 1]))
    logits = cosine_logits(torch.tensor([[0.0, 5.0]]), text, 10.0)
    torch.testing.assert_close(logits, torch.tensor([[10.0, 0.0]]))


def test_the_length_of_a_mask_embedding_does_not_matter() -> None:
    """Cosine: only the direction counts."""
    text = ClassEmbeddings(F.normalize(torch.randn(5, 8), dim=-1), torch.tensor([0, 1, 1, 2, 3]))
    masks = torch.randn(2, 3, 8)
    torch.testing.assert_close(cosine_logits(masks, text, 7.0), cosine_logits(100 * masks, text, 7.0))


def test_without_synonyms_it_is_a_matrix_product() -> None:
    """One word per class: scale · normalised masks · text, exactly."""
    text = ClassEmbeddings(F.normalize(torch.randn(4, 8), dim=-1), torch.arange(4))
    masks = torch.randn(3, 8)
    torch.testing.assert_close(cosine_logits(masks, text, 2.0), 2 * F.normalize(masks, dim=-1) @ text.embeddings.T)


def test_void_is_the_last_column_and_the_temperature_is_clamped() -> None:
    """An embedding along `void` scores exactly the scale there, which starts at 1 / 0.07 and never exceeds 100."""
    classifier = CosineClassifier(8)
    text = ClassEmbeddings(F.normalize(torch.randn(4, 8), dim=-1), torch.arange(4))
    logits = classifier(classifier.void[None].detach(), text)
    assert logits.shape == (1, 5)
    torch.testing.assert_close(logits[0, -1].item(), 1 / 0.07, rtol=1e-4, atol=0)
    with torch.no_grad():
        classifier.log_scale.fill_(math.log(1e6))
    torch.testing.assert_close(classifier(classifier.void[None], text)[0, -1].item(), 100.0, rtol=1e-4, atol=0)


def test_gradients_reach_only_the_best_synonym() -> None:
    """The maximum passes its gradient to the synonym that won."""
    embeddings = torch.tensor([[1.0, 0], [0.8, 0.6]], requires_grad=True)
    text = ClassEmbeddings(embeddings, torch.tensor([0, 0]))
    cosine_logits(torch.tensor([[1.0, 0.1]]), text, 1.0).sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad[0].abs().sum() > 0 and embeddings.grad[1].abs().sum() == 0
