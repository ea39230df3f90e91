"""The catalogue of the paper: what each study declares, what runs share, and what is recorded."""

import dataclasses
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest

import experiments.all
from experiments import record
from experiments.controls import Scored
from experiments.gradients import advantages, outcome
from experiments.presets import tiny, uniform_and_lilo
from experiments.recipes import ARMS, RECIPES, recipe
from experiments.study import LABELS, PRESETS, Finding, is_trained, rule_text
from experiments.study_runs import main, parse, run_name, start_name, verdict_of
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.errors import RunError, UsageError
from lilo_jax.training.checks import check

STUDIES = experiments.all.studies()
ALL = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)


def test_the_catalogue_is_complete():
    assert [study.id for study in STUDIES] == list(range(1, 35))
    assert len({study.name for study in STUDIES}) == 34


@ALL
def test_a_study_says_what_it_shows(study):
    path = pathlib.Path(experiments.all.__file__).parent / "paper" / f"{study.name}.py"
    assert study.module == f"experiments.paper.{path.stem}"
    assert all(study.said(label) for label in LABELS)
    assert study.said("Command") == f"python -m {study.module} --preset tiny"
    assert study.title
    assert len(path.read_text().splitlines()) <= 130


@ALL
def test_the_configs_of_every_preset_build_and_reload(study):
    for preset in PRESETS:
        settings = study.preset(preset)
        described = study.described(settings)
        assert json.loads(json.dumps(described)).keys() == settings.keys()
        for given in filter(is_trained, settings.values()):
            arms = study.arms(given)
            assert len(arms) > 1
            names = {run_name(arm) for arm in arms.values()} if preset == "tiny" else arms
            assert len(names) == len(arms) - bool(study.begins and preset == "tiny")
            for arm in arms.values():
                assert configuration.from_dict(json.loads(json.dumps(configuration.to_dict(arm)))) == arm
                samples, questions = arm.rollout.samples, arm.rollout.questions
                arm.curriculum.build(pool_size=20_000, questions=questions, samples=samples)
                arm.algorithm.build()


@ALL
def test_what_tiny_trains_passes_the_checks_of_a_run(study):
    for given in filter(is_trained, study.tiny.values()):
        arm = list(study.arms(given).values())[-1]
        check(arm)
