"""`manifield collect`: record demonstrations of a world's expert, as many as asked for and successes only.

Every episode is a function of base seed, task and number, and appears on disk whole or not at all. So any number of
processes gives the same files, and a run that was killed goes on with the episodes that are missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from demos.keyframes import find_keyframes
from demos.record import Rejected, record_episode
from demos.store import open_episode
from demos.writer import EXTRA, LOW_DIM, episode_directory, remove_unfinished
from envs.interface import Environment
from manifield.errors import InputError
from manifield.progress import Progress
from manifield.versions import versions
