"""What every study file claims: the official values, read line by line in the authors' configurations.

The table was written from those files, not from the studies; a source is a repository, file and lines of it
(the newest commit in November 2026). A study's head names each of its sources.
"""

from pathlib import Path
from typing import Any

import pytest

from raykd.driver.confirm import make_control
from raykd.study.recipe import make_teacher_recipes
from raykd.study.study import Study

STUDIES = Path(__file__).parents[2] / "studies"
Values = dict[str, Any]  # path in the recipe -> value
Table = dict[str, list[tuple[str, Values]]]  # study -> (source, what it says), the later the stronger


def value_at(plain: Any, path: str) -> Any:
    for part in path.split("/"):
        plain = plain[part]
    return plain


def sgd(epochs: int, batch: int, lr: float, decay: float, milestones: tuple[int, ...]) -> Values:
    """SGD with momentum 0.9 whose rate is divided by 10 after the milestones; none: half a cosine to 0."""
    schedule: Values = {"schedule/kind": "cosine"}
    if milestones:
        fractions = [m / epochs for m in milestones]
        schedule = {"schedule/kind": "step", "schedule/milestones": fractions, "schedule/factor": 0.1}
    optimizer = {"lr": lr, "batch_size": batch, "weight_decay": decay, "momentum": 0.9, "nesterov": False}
    optimizer |= {"name": "sgd", "lr_base_size": None, "accumulate": 1, "warmup": 0, "lr_updates": "epoch"}
    optimizer |= {"clip_norm": None, "decay_vectors": True}
    return {"epochs": epochs, **schedule} | {f"optimizer/{name}": value for name, value in optimizer.items()}


def method(**values: Any) -> Values:
    """Fields of the method; `weights` are its loss weights."""
    weights = {f"method/weights/{name}": value for name, value in values.pop("weights", {}).items()}
    return {f"method/{name.replace('__', '/')}": value for name, value in values.items()} | weights


RD, MD, CKD = "HobbitLong/RepDistiller", "megvii-research/mdistiller", "ZhouXinzzzzz/CKD"
SDD, REVIEW, SIMKD = "shicaiwei123/SDD-CVPR2024", "dvlab-research/ReviewKD", "DefangChen/SimKD"
SSKD, DCD, PCKD = "xuguodong03/SSKD", "giakoumoglou/distillers", "MuHeDing/PCKD"
DIST, CRCD = "hunto/image_classification_sota", "Lechatelia/CRCD"
EED, BEED = "hjdw2/Exit-Ensemble-Distillation", "hjdw2/BEED"
MCL, LMCL, MCL_OKD = "winycg/MCL", "winycg/L-MCL", "winycg/MCL-OKD"

CIFAR = sgd(240, 64, 0.05, 5e-4, (150, 180, 210))
SLOW = {"optimizer/lr": 0.01}  # of ShuffleNets and MobileNets
REPDISTILLER = (f"{RD}, train_student.py:44-54", CIFAR)
SHUFFLE = (f"{RD}, train_student.py:93-94", SLOW)
RUN = f"{RD}, scripts/run_cifar_distill.sh"
CFG = f"{MD}, mdistiller/engine/cfg.py"

AT = method(power=2, weights={"task": 1, "attention": 1000})
CRD = method(dim=128, negatives=16384, temperature=0.07, momentum=0.5)
DCD_LOSS = method(init_scale_log=1.0, max_scale=10.0, init_bias=0.0, weights={"consistency": 0.5})
DKD_CFG = (f"{CFG}:161-167", method(temperature=4, warm_up=20 / 240, weights={"task": 1, "target": 1}))
SDD_CFG = (f"{SDD}, mdistiller/engine/cfg.py:161-167", method(temperature=4, weights={"task": 1, "kd": 1}))
SDD_KD = f"{SDD}, mdistiller/engine/cfg.py:60-64"

REPDISTILLER_METHODS: Table = {
    "kd": [
        (f"{RUN}:5", method(standardize=False, weights={"task": 0.1, "kd": 0.9})),
        (f"{RD}, train_student.py:78", method(temperature=4)),
    ],
    "fitnet": [
        (f"{RUN}:7", method(weights={"task": 1, "hint": 100})),
        (f"{RD}, train_student.py:88", method(hint=2)),
    ],
    "at": [(f"{RUN}:9", AT), (f"{RD}, distiller_zoo/AT.py:11", method(power=2))],
    "sp": [(f"{RUN}:11", method(weights={"task": 1, "similarity": 3000}))],
    "cc": [
        (f"{RUN}:13", method(weights={"task": 1, "correlation": 0.02})),
        (f"{RD}, train_student.py:81", method(dim=128)),
    ],
    "vid": [
        (f"{RUN}:15", method(weights={"task": 1, "information": 1})),
        (f"{RD}, distiller_zoo/VID.py:16", method(init_variance=5.0)),
    ],
    "rkd": [
        (f"{RUN}:17", method(weights={"task": 1})),
        (f"{RD}, distiller_zoo/RKD.py:10", method(weights={"distance": 25, "angle": 50})),
    ],
    "pkt": [(f"{RUN}:19", method(weights={"task": 1, "affinity": 30000}))],
    "crd": [
        (f"{RUN}:29", method(weights={"task": 1, "contrast": 0.8})),
        (f"{RD}, train_student.py:81-85", CRD),
    ],
}
DCD_METHOD: list[tuple[str, Values]] = [
    (f"{DCD}, cifar/scripts/run_cifar_distill.sh:42", method(weights={"task": 1, "contrast": 1})),
    (f"{DCD}, cifar/distillers/DCD.py:25", DCD_LOSS | method(learnable=True)),
    (f"{DCD}, cifar/train_student.py:73", method(dim=128)),
]
DIST_CIFAR: list[tuple[str, Values]] = [
    (
        f"{DIST}, configs/strategies/distill/dist_cifar.yaml:5-36",
        CIFAR | method(temperature=4, weights={"task": 1}),
    ),
    (f"{DIST}, lib/models/losses/kd_loss.py:69-71", method(weights={"inter": 2, "intra": 2})),
    (
        f"{DIST}, configs/strategies/distill/dist_cifar.yaml:31-32",
        {"optimizer/nesterov": False, "optimizer/decay_vectors": True},
    ),
]
PCKD_COMMAND = method(weights={"task": 1, "centre": 1, "category": 0.05, "feature": 20, "kd": 0})
PCKD_METHOD: list[tuple[str, Values]] = [
    (f"{PCKD}, README.md", PCKD_COMMAND),
    (f"{PCKD}, train_student.py", method(temperature=4)),
    (f"{PCKD}, dataset/cifar100.py", {"data/rotations": 4, "data/flip": True, "data/padding": 4}),
]
REVIEW_CIFAR: list[tuple[str, Values]] = [
    (f"{REVIEW}, CIFAR-100/train.py:23-34", sgd(240, 128, 0.1, 5e-4, (150, 180, 210))),
    (f"{REVIEW}, CIFAR-100/train.py:50", method(warm_up=20 / 240)),
    (f"{REVIEW}, CIFAR-100/train.py:178-179", {"optimizer/nesterov": True}),
]
CRCD_METHOD: list[tuple[str, Values]] = [
    (f"{CRCD}, train_student.py:48-59", sgd(250, 64, 0.05, 5e-4, (150, 180, 210))),
    (
        f"{CRCD}, train_student.py:79-98",
        method(dim=128, negatives=500, temperature=0.05, momentum=0.5, kd_temperature=4)
        | method(weights={"task": 1, "kd": 0.9, "contrast": 1, "gradient": 1}),
    ),
    (f"{CRCD}, helper/loops.py:80-86", method(until=240 / 250)),
]
EXITS = sgd(200, 128, 0.1, 5e-4, (75, 130, 180))
EED_METHOD: list[tuple[str, Values]] = [
    (f"{EED}, train.py:32-47", EXITS),
    (f"{EED}, train.py:329-342", {}),
    (
        f"{EED}, train.py:159-202",
        method(divergence__kind="mse", weights=dict.fromkeys(("task", "exits", "logits", "feature"), 1)),
    ),
]
BEED_METHOD: list[tuple[str, Values]] = [
    (f"{BEED}, train.py:34-51", EXITS),
    (f"{BEED}, train.py:334-347", {}),
    (f"{BEED}, train.py:55-57", method(temperature=3, alpha=1.15, beta=1.6)),
    (f"{BEED}, train.py:186-212", method(weights={"task": 1, "exits": 1, "kd": 1, "feature": 0.1})),
]
SIMKD_METHOD: list[tuple[str, Values]] = [
    (f"{SIMKD}, scripts/run_distill.sh:22", method(weights={"task": 0, "feature": 1})),
    (f"{SIMKD}, train_student.py:67", method(factor=2)),
]
SSKD_TERMS = method(
    teacher_stage=0.2, temperature=4, rotated_temperature=4, similarity_temperature=0.5,
    rotated_keep=1, similarity_keep=0.75,
    weights={"task": 0.1, "kd": 0.9, "rotated": 2.7, "similarity": 10},
)  # fmt: skip
SSKD_METHOD: list[tuple[str, Values]] = [
    (f"{SSKD}, student.py:26-49", sgd(300, 64, 0.05, 5e-4, (210, 240, 270)) | SSKD_TERMS),  # 60 + 240 epochs
    (f"{SSKD}, cifar.py:143-145", {"data/rotations": 4, "data/flip": True, "data/padding": 4}),
]


def dkd(**values: Any) -> Values:
    return {f"method/divergence/{name}": value for name, value in ({"kind": "dkd"} | values).items()}


NESTEROV: Values = {"optimizer/nesterov": True}
CIFAR_STUDIES: Table = {
    "mcl": [
        (
            f"{MCL}, main_cifar.py:31-54",
            sgd(300, 128, 0.1, 5e-4, ())
            | method(temperature=0.1, kl_temperature=3, dim=128)
            | {"student/copies": 2},
        ),
        (f"{MCL}, main_cifar.py:299-300", NESTEROV),
        (f"{MCL}, main_cifar.py:100", {"optimizer/images_per_class": 2}),
        (
            f"{MCL}, scripts/train_cifar_mcl.sh:8-9",
            method(weights={"task": 1, "vcl": 0.1, "soft_vcl": 1, "icl": 0.1, "soft_icl": 1, "ensemble": 0}),
        ),
    ],
    "intra_class": [REPDISTILLER, *REPDISTILLER_METHODS["kd"]],
    "lmcl": [
        (
            f"{LMCL}, main_layer_mcl_cifar_meta.py:32-58",
            sgd(300, 128, 0.1, 5e-4, ())
            | method(temperature=0.1, kl_temperature=3, dim=128)
            | method(weights={"task": 1, "exits": 1, "aggregated": 1, "kd": 1})
            | method(weights={"vcl": 0.1, "soft_vcl": 1, "icl": 0.1, "soft_icl": 1})
            | {"student/copies": 2},
        ),
        (f"{LMCL}, main_layer_mcl_cifar_meta.py:409-410", NESTEROV),
        (f"{LMCL}, main_layer_mcl_cifar_meta.py:105", {"optimizer/images_per_class": 2}),
    ],
    "mcl_okd": [
        (
            f"{MCL_OKD}, main_cifar_mcl_okd.py:31-55",
            sgd(300, 64, 0.05, 5e-4, ())
            | method(branches=4, first=2, temperature=0.1, kd_temperature=3, dim=128, momentum=0.5)
            | method(weights={"task": 1, "branches": 1, "kd": 1, "contrast": 0.025}),
        ),
        (f"{MCL_OKD}, main_cifar_mcl_okd.py:271", NESTEROV),
        (f"{MCL_OKD}, README.md", method(negatives=256)),
    ],
    "dml": [
        (
            f"{MCL_OKD}, main_cifar_dml.py:27-40",
            sgd(300, 128, 0.1, 5e-4, ()) | method(temperature=2) | {"student/copies": 4},
        ),
        (f"{MCL_OKD}, main_cifar_dml.py:250", NESTEROV),
    ],
    "latentbe": [
        (
            "cs-giung/distill-latentbe",
            sgd(200, 128, 0.1, 5e-4, ())
            | {"optimizer/nesterov": True, "optimizer/warmup": 5 / 200}
            | method(temperature=4, perturbation=1, weights={"task": 0, "kd": 1}),
        )
    ],
    **{name: [REPDISTILLER, *own] for name, own in REPDISTILLER_METHODS.items()},
    **{f"{name}-hetero": [REPDISTILLER, SHUFFLE, *own] for name, own in REPDISTILLER_METHODS.items()},
    **{name: [REPDISTILLER] for name in ("blockkd", "clkd", "iakd", "mcld", "msdcrd", "wcord")},
    **{f"{name}-hetero": [REPDISTILLER, SHUFFLE] for name in ("clkd", "mcld", "msdcrd", "wcord")},
    "ckd": [
        (
            f"{CKD}, configs/cifar100/ckd/wrn40_2_wrn_16_2.yaml:10-21",
            sgd(480, 64, 0.05, 5e-4, ()) | method(temperature=1, weights={"task": 1, "contrast": 100}),
        )
    ],
    "ckd-hetero": [
        (
            f"{CKD}, configs/cifar100/ckd/res32x4_shuv1.yaml:10-21",
            sgd(480, 32, 0.01, 5e-4, ()) | method(temperature=1, weights={"task": 1, "contrast": 100}),
        )
    ],
    "beed": BEED_METHOD,
    "beed-hetero": [*BEED_METHOD, SHUFFLE],
    "eed": EED_METHOD,
    "eed-hetero": [*EED_METHOD, SHUFFLE],
    "crcd": CRCD_METHOD,
    "crcd-hetero": [*CRCD_METHOD, (f"{CRCD}, train_student.py:106-108", SLOW)],
    "dcd": [(f"{DCD}, cifar/train_student.py:35-45", CIFAR), *DCD_METHOD],
    "dcd-hetero": [
        (f"{DCD}, cifar/train_student.py:35-45", CIFAR),
        (f"{DCD}, cifar/train_student.py:88-89", SLOW),
        *DCD_METHOD,
    ],
    "dist": DIST_CIFAR,
    "dist-hetero": [*DIST_CIFAR, SHUFFLE],
    "dkd": [
        DKD_CFG,
        (
            f"{MD}, configs/cifar100/dkd/wrn40_2_wrn_16_2.yaml:10-19",
            CIFAR | method(weights={"non_target": 6}),
        ),
    ],
    "dkd-hetero": [
        (f"{CFG}:161-167", method(weights={"non_target": 8})),
        DKD_CFG,
        (f"{MD}, configs/cifar100/dkd/res32x4_shuv1.yaml:10-17", CIFAR | SLOW),
    ],
    "pckd": [(f"{PCKD}, train_student.py:55-65", CIFAR), *PCKD_METHOD],
    "pckd-hetero": [
        (f"{PCKD}, train_student.py:55-65", CIFAR),
        (f"{PCKD}, train_student.py:108-109", SLOW),
        *PCKD_METHOD,
        (f"{PCKD}, train_student.py", method(weights={"centre": 0})),  # what its code does
    ],
    "reviewkd": [*REVIEW_CIFAR, (f"{REVIEW}, CIFAR-100/script/reviewKD.sh:1", method(weights={"review": 5}))],
    "reviewkd-hetero": [
        *REVIEW_CIFAR,
        (f"{REVIEW}, CIFAR-100/script/reviewKD.sh:9", method(weights={"review": 5})),
        (f"{REVIEW}, CIFAR-100/train.py:168-169", {"optimizer/lr": 0.02}),
    ],
    "sdd": [
        SDD_CFG,
        (f"{SDD}, configs/cifar100/sdd_dkd/wrn40_2_wrn_16_2.yaml:10-19", CIFAR | dkd(non_target=6)),
        (f"{SDD}, train_origin.py:198", dkd(warm_up=20 / 240)),
        (f"{SDD}, README.md:41", method(finest=4, complementary=2)),
        (SDD_KD, {}),
    ],
    "sdd-hetero": [
        SDD_CFG,
        (f"{SDD}, mdistiller/engine/cfg.py:161-167", dkd(non_target=8)),
        (f"{SDD}, configs/cifar100/sdd_dkd/res32x4_shuv1.yaml:10-17", CIFAR | SLOW),
        (f"{SDD}, train_origin.py:198", dkd(warm_up=20 / 240)),
        (f"{SDD}, teacher_resnet32x4.sh:7", method(finest=4, complementary=2)),
        (SDD_KD, {}),
    ],
    "simkd": [(f"{SIMKD}, train_student.py:42-52", CIFAR), *SIMKD_METHOD],
    "simkd-hetero": [
        (f"{SIMKD}, train_student.py:42-52", CIFAR),
        (f"{SIMKD}, train_student.py:95-96", SLOW),
        *SIMKD_METHOD,
    ],
    "sskd": [*SSKD_METHOD, (f"{SSKD}, command.sh:20", {"optimizer/lr": 0.05})],
    "sskd-hetero": [*SSKD_METHOD, (f"{SSKD}, command.sh:29", SLOW)],
}

UNOFFICIAL = (
    "beed", "cc", "clkd", "crcd", "eed", "dcd", "fitnet", "mcld", "msdcrd", "pckd", "pkt", "rkd", "sp",
    "sskd", "vid", "wcord",
)  # fmt: skip
ONE_PAIR = ("blockkd", "dml", "iakd", "intra_class", "lmcl", "mcl", "mcl_okd")  # likewise; resnet18 alone
HUNDRED_512 = sgd(100, 512, 0.2, 1e-4, (30, 60, 90))
HUNDRED_256 = sgd(100, 256, 0.1, 1e-4, (30, 60, 90))
DIST_IMAGENET: list[tuple[str, Values]] = [
    (f"{DIST}, configs/strategies/distill/resnet_dist.yaml:2-30", HUNDRED_256 | method(weights={"task": 1})),
    (f"{DIST}, README.md:71", {"optimizer/batch_size": 8 * 32}),
    (
        f"{DIST}, lib/models/losses/kd_loss.py:67-68",
        method(temperature=1, weights={"inter": 2, "intra": 2}),
    ),
    (f"{DIST}, tools/train.py:137", {"optimizer/nesterov": True}),
    (f"{DIST}, lib/utils/optim.py:57-63", {"optimizer/decay_vectors": False}),
]
SIMKD_IMAGENET: list[tuple[str, Values]] = [
    (
        f"{SIMKD}, scripts/run_distill.sh:25",
        sgd(120, 256, 0.1, 1e-4, (30, 60, 90)) | method(weights={"task": 0, "feature": 1}),
    ),
    (f"{SIMKD}, train_student.py:67", method(factor=2)),
]


def make_imagenet_table(pair: str, suffix: str, beta: float, review: float, sdd: Table) -> Table:
    """One pair's studies; mdistiller and CKD name its folder `pair`."""
    folder = f"{MD}, configs/imagenet/{pair}"
    common = f"{folder}/crd.yaml:15-22", HUNDRED_256
    kd = HUNDRED_512 | method(temperature=1, standardize=False, weights={"task": 0.5, "kd": 0.5})
    dkd_loss = method(temperature=1, warm_up=0.01, weights={"task": 1, "target": 1, "non_target": beta})
    crd_loss = CRD | method(weights={"task": 1, "contrast": 0.8})
    review_loss = method(warm_up=0.01, weights={"task": 1, "review": review})
    ckd = sgd(200, 512, 0.2, 1e-4, ()) | method(temperature=1, weights={"task": 1, "contrast": 10})
    table: Table = {
        **{name: [common] for name in UNOFFICIAL},
        "kd": [(f"{folder}/kd.yaml:15-27", kd)],
        "at": [(f"{folder}/at.yaml:15-22", HUNDRED_512), (f"{CFG}:67-71", AT)],
        "crd": [common, (f"{CFG}:135-147", crd_loss)],
        "dkd": [(f"{folder}/dkd.yaml:15-30", HUNDRED_512 | dkd_loss), (f"{CFG}:164", {})],
        "reviewkd": [(f"{folder}/reviewkd.yaml:15-29", HUNDRED_256 | review_loss)],
        "ckd": [(f"{CKD}, configs/imagenet/{pair}/ckd.yaml:15-26", ckd)],
        "dist": DIST_IMAGENET,
        "simkd": SIMKD_IMAGENET,
        "dcd": [
            common,
            (f"{DCD}, imagenet/train_student.py:301-321", method(learnable=False)),
            (f"{DCD}, imagenet/distillers/DCD.py:25", DCD_LOSS),
        ],
        "sskd": [
            (common[0], sgd(125, 256, 0.1, 1e-4, (25 + 30, 25 + 60, 25 + 90))),
            (f"{SSKD}, student.py:26-36", method(teacher_stage=0.2)),
        ],
        **sdd,
    }
    return {f"imagenet/{name}{suffix}": rows for name, rows in table.items()}


def make_sdd_rows(pair: str, lines: str, beta: float, run: int, finest: int) -> Table:
    """Two processes of 256 images each."""
    config = f"{SDD}, configs/imagenet/{pair}"
    loss = method(temperature=1, weights={"task": 1, "kd": 1}) | dkd(non_target=beta)
    return {
        "sdd": [
            (f"{config}/sdd_dkd.yaml:{lines}", HUNDRED_512 | loss),
            (f"{config}/sdd_kd.yaml:15", {"optimizer/batch_size": 2 * 256}),
            (f"{SDD}, run.sh:{run}", method(finest=finest)),
            (f"{SDD}, train.py:142", {"batch_norm": "synced"}),
            (f"{SDD}, train.py:195", dkd(warm_up=0.01)),
            (SDD_KD, {}),
        ]
    }


OFFICIAL: Table = {
    **{f"cifar100/{name}": rows for name, rows in CIFAR_STUDIES.items()},
    **make_imagenet_table("r34_r18", "", 0.5, 1, make_sdd_rows("r34_r18", "16-30", 0.5, 3, 2)),
    **{f"imagenet/{n}": [(f"{MD}, configs/imagenet/r34_r18/crd.yaml:15-22", HUNDRED_256)] for n in ONE_PAIR},
    **make_imagenet_table("r50_mv1", "-MobileNetV1", 2, 8, make_sdd_rows("r50_mv2", "15-31", 2, 4, 4)),
}


def test_every_study_of_a_paper_is_in_the_table() -> None:
    paths = [path for folder in ("cifar100", "imagenet") for path in (STUDIES / folder).glob("*.yaml")]
    files = {path.relative_to(STUDIES).with_suffix("").as_posix() for path in paths}
    assert set(OFFICIAL) == files and len(files) == 115


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_a_study_has_the_official_values_and_names_their_sources(name: str) -> None:
    path = STUDIES / f"{name}.yaml"
    recipe, head = Study.read(path).recipe.to_dict(), path.read_text().split("\nname:")[0]
    expected = {path: value for _, values in OFFICIAL[name] for path, value in values.items()}
    assert {path: value_at(recipe, path) for path in expected} == {
        path: pytest.approx(value) for path, value in expected.items()
    }
    assert [source for source, _ in OFFICIAL[name] if f"{source} (" not in head] == []
    unofficial = name.split("/")[1].removesuffix("-MobileNetV1") in (
        *UNOFFICIAL,
        *ONE_PAIR,
    ) and name.startswith("imagenet")
    assert ("(no official ImageNet configuration; the common protocol of mdistiller)" in head) == unofficial


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n in OFFICIAL if n.startswith("cifar100")))
def test_a_studys_own_teacher_is_trained_by_repdistillers_recipe(name: str) -> None:
    """train_teacher.py:31-40 and 55-56, with flips also where the student sees four rotations."""
    for teacher in make_teacher_recipes(Study.read(STUDIES / f"{name}.yaml").recipe):
        lr = SLOW if teacher.student.net in ("MobileNetV2", "ShuffleV1", "ShuffleV2") else {}
        for path, value in (CIFAR | lr | {"data/flip": True, "data/rotations": 1}).items():
            assert value_at(teacher.to_dict(), path) == value, path


def test_sdds_other_point_is_tried_too() -> None:
    """SD-KD: T = 4, 0.1 and 0.9 (mdistiller/engine/cfg.py:60-64), at the pair's scales."""
    for name in ("cifar100/sdd", "cifar100/sdd-hetero", "imagenet/sdd", "imagenet/sdd-MobileNetV1"):
        study = Study.read(STUDIES / f"{name}.yaml")
        (point,) = study.enqueue
        recipe = study.recipe_with(point).to_dict()
        expected = method(temperature=4, divergence={"kind": "kd"}, weights={"task": 0.1, "kd": 0.9})
        assert {path: value_at(recipe, path) for path in expected} == expected
        assert recipe["method"]["finest"] == study.recipe.to_dict()["method"]["finest"]


@pytest.mark.parametrize(
    "study", ["imagenet/dist.yaml", "imagenet/ckd-MobileNetV1.yaml", "cifar100/dist.yaml"]
)
def test_the_control_kd_has_the_values_of_the_data(study: str) -> None:
    control = make_control(Study.read(STUDIES / study).recipe, "kd").method
    kd = Study.read(STUDIES / study.split("/")[0] / "kd.yaml").recipe.method
    assert control == kd
