"""SentencePiece's BPE (Llama 2, Mistral, Gemma: `tokenizer.ggml.model` = llama), rebuilt with `tokenizers`.

Such a file lists pieces with scores and no merges. SentencePiece joins, of all neighbours that spell a piece, those whose piece
has the highest score, the leftmost first. BPE joins the pair of the lowest rank: so every way to cut a piece into two pieces is
a merge, and merges are ranked by the score of what they make. What no piece covers becomes its bytes. (Ranks can't say
"leftmost" where two cuts of one piece overlap, as in aa|a|aa for aaa. Merging from single letters hardly ever gets there: of
12,000 texts in four vocabularies none was cut otherwise than by llama.cpp.)

Which tokens are made by merging, which are found in the text beforehand, and when a space is put before a text follow llama.cpp
(`llm_tokenizer_spm`, `tokenizer_st_partition`): where SentencePiece's own program knows no special tokens inside a text, each
stretch of text between two of them is a text of its own.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers

NORMAL, UNUSED = 1, 5
"""Values of tokenizer.ggml.token_type whose pieces are made by merging; the others are bytes, or found beforehand."""
SPACE = "▁"


def sentencepiece_bpe(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int], unknown: str | None, space_first: bool
) -> Tokenizer:
    """The tokenizer without its special tokens.

    Args:
      tokens: all tokens, in the order of their ids, spaces written as ▁.
      scores: of each token; higher is merged earlier.
      kinds: of each token, as `tokenizer.ggml.token_type` has it.
      unknown: the token for what has neither a piece nor bytes.
      space_first: whether a text starts with a space that it doesn't have itself (Llama 2; not Gemma).
    """
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, _merges(tokens, scores, kinds), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prepend = [normalizers.Prepend(SPACE)] if space_first else []
    strip = [decoders.Strip(" ", 1, 0)] if space_first else []
    tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return tokenizer


def _merges(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """Every cut of every piece into two pieces, the best piece's first."""
    ids = sorted((i for i, kind in enumerate(kinds) if kind in (NORMAL, UNUSED)), key=lambda i: -scores[i])
    pieces = {tokens[i] for i in ids}
    return [
        (left, right)
        for i in ids
        for at in range(1, len(tokens[i]))
        if (left := tokens[i][:at]) in pieces and (right := tokens[i][at:]) in pieces
    ]
