"""The fast engine: answers to batches of prompts, without computing on the visual tokens that a plan prunes.

Where to start reading. `FastEngine` in `fast.py` is all that the rest of fast3d calls; what it must give is what
`llm/reference.py` gives, which is slow, short and shares no mask, cache or beam code with it. In the order of a batch:

1. `fast.py` checks plans against prompts, lets the buffers grow, and cuts the layers into runs.
2. `runs.py`: a run is the layers from one boundary to the next, where a boundary is a layer at which the plan of some
   sample has a stage. In a run every layer sees the same tokens; samples without a stage keep what they have.
3. `prefill.py` computes the prompts: once, packed, all samples behind one another. Where all runs are known beforehand
   and rows are few, it replays a CUDA graph; a batch that is smaller than the graph is filled up with padding.
4. `selection.py` calls the functions of the stages that have to look first, between two layers of prefill, and
   `look.py` computes what they look at: attention of the last row or of the text rows, keys, hidden states.
5. `decode.py` adds one token a step to every beam; `beam.py` chooses which, as tensors on the device. On a GPU a step
   is captured once and replayed. Nothing in it waits for the host.

What they share:

- `packing.py`: ragged batches as packed rows; `cu_seqlens` says where each sample begins.
- `cache.py`: keys and values, a layer a buffer, one set a sample. A `Layout` says which row is whose: prompts first,
  then the decode slots, of every beam for every step. `slot_mapping` is where new rows go.
- `prefix_cache.py`: keys and values of what stands before the questions, kept from batch to batch (`reuse_prefix`).
- `layers.py`: a decoder layer as four matrix products; `backend.py`: what stands between them, in plain torch
  (`operations.py`, `attention.py`, `flash.py`) or as Triton's kernels (`kernels.py`).

Rules that hold everywhere, and which tests check (tests/llm/test_engines.py, test_stages.py):

- Nothing is moved. A beam follows its ancestors by `BeamAncestry`, not by copying caches; buffers stay where they are,
  so that what was captured for one batch serves the next. Where a buffer has to grow, captures are dropped.
- Rows keep their order and their positions when tokens are dropped: causal attention over the rows that are left is
  then the same as masking, and the first new token stands behind the unpruned prompt.
- What the host needs to know about a batch is on the device before the first layer runs. Only stages that look make
  the host wait, once a boundary.
- Padding is finite everywhere: attention gives it no weight, but nothing times NaN is NaN.

Shapes are in every docstring: rows are packed tokens, (rows, hidden); queries (rows, heads, head_dim); caches (cache
rows, kv heads, head_dim); offsets of visual tokens (count,) int64.
"""
