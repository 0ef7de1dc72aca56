"""The report as one HTML page that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fairseq_bert_kd
from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.significance import RESAMPLES
from fairseq_bert_kd.evaluation.text_metrics import NAMES
from fairseq_bert_kd.report import formats
from fairseq_bert_kd.report.choose_sentences import LONGEST, SHORTEST
from fairseq_bert_kd.report.comparison import GROUP_TITLES, SIGNIFICANT, SystemRow, verdict
from fairseq_bert_kd.report.experiment import MAIN_GROUP
from fairseq_bert_kd.report.foreign_text import visible
from fairseq_bert_kd.report.formats import plain_name, signed
from fairseq_bert_kd.report.growth import growth_panels
from fairseq_bert_kd.report.length_bins import BINS
from fairseq_bert_kd.report.plot_style import Panel, svg
from fairseq_bert_kd.report.section import Section
from fairseq_bert_kd.report.soft_labels import temperature_of
from fairseq_bert_kd.report.step_times import step_rows
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, scoring_plan

TEMPLATES = Path(__file__).parent / "templates"


def slugs(sections: Sequence[Section]) -> list[str]:
    """A name for each experiment that serves in addresses and file names: its task where that tells them apart."""
    found: list[str] = []
    for section in sections:
        experiment = section.experiment
        tasks = [other.experiment.task for other in sections]
        name = (
            experiment.task if tasks.count(experiment.task) == 1 else f"{experiment.task}-{experiment.size}"
        )
        name = plain_name(name) or "experiment"
        number = 2
        while name in found:
            name, number = f"{name.removesuffix(f'-{number - 1}')}-{number}", number + 1
        found.append(name)
    return found


def scale_of(rows: Sequence[SystemRow]) -> tuple[float, float]:
    """Of the gains of a table."""
    return formats.gain_scale([gain for row in rows for gain in row.gains.values()])


def render(sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        sections: of the experiments, in the order of the page.
    """
    jinja2 = import_extra("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "spread": formats.spread_text,
        "signed": signed,
        "p": formats.p_text,
        "listed": formats.list_text,
        "duration": formats.duration,
        "percent": formats.percent,
    }
    names = slugs(sections)

    def plot(panel: Panel, slug: str) -> Any:
        unique = panel._replace(name=f"{slug}-{panel.name}")
        return jinja2.utils.markupsafe.Markup(svg(unique))

    environment.globals |= {
        "plot": plot,
        "verdict": verdict,
        "step_rows": step_rows,
        "scale_of": scale_of,
        "temperature_of": temperature_of,
        "NAMES": NAMES,
        "GROUP_TITLES": GROUP_TITLES,
        "MAIN_GROUP": MAIN_GROUP,
        "SIGNIFICANT": SIGNIFICANT,
        "RESAMPLES": RESAMPLES,
        "BINS": BINS,
        "PREFIX_PLAN": PREFIX_PLAN,
        "scoring_plan": scoring_plan,
        "LENGTHS": (SHORTEST, LONGEST),
    }
    return environment.get_template("page.html").render(
        sections=list(zip(names, sections, strict=True)),
        growth=list(growth_panels(sections)),
        version=fairseq_bert_kd.__version__,
    )
