"""Training the GAP network on extracted attention maps (arXiv 2507.09334, section 4.1).

A step depends on nothing but the options and its number: the order of an epoch is drawn from (seed, epoch), dropout
from (seed, step, process), the learning rate is a function of the step. So the last checkpoint holds the weights,
AdamW's moments and the step, which stands for the states of random generators and scheduler; a run continued from it
computes the very steps that an uninterrupted one computes (on a GPU, up to the order in which it adds).

`loop.py` has `train`, `options.py` what can be chosen, `schedule.py` the recipe, `data.py` what is read, and `state.py`
the files of a run.
"""
