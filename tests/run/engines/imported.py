"""Imports all that a replica needs: for a process from which replicas are forked."""

import torch

from tests.docs.warm import run_once

torch.set_num_threads(1)  # other threads would be missing in a forked process
run_once()
