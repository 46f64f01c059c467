"""Imports all that a replica needs: for a process from which replicas are forked."""

import os

import torch

from tests.docs.warm import run_once

torch.set_num_threads(1)  # other threads would be missing in a forked process
run_once()
# A forked process gets PyTorch's pool of threads anew at its first use. Two threads at once would find none.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
