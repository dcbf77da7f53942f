"""The credit forecast as the enclave sees it: a bundle, its manifest, JSON in and JSON out."""

from __future__ import annotations

import json

import histories
import msgspec
from history import History, HistoryError
from model import Forecast

from cloister.function.bundle import build_bundle
from cloister.function.declare import declaration_of
from cloister.function.manifest import Need
from credit_forecast import credit_forecast


def test_the_bundle_may_open_histories_and_seal_forecasts_and_nothing_else() -> None:
    bundle = build_bundle(histories.HERE / "function")
    assert bundle.manifest.needs == (
        Need("use-in-function", "key/credit-histories"),
        Need("seal", "key/forecasts"),
    )
    assert bundle.manifest.output_context == bundle.manifest.input_context == {"customer"}
    assert sorted(bundle.files) == ["coefficients.json", "credit_forecast.py", "history.py", "model.py"]


def test_every_way_to_refuse_a_history_may_be_shown_by_name() -> None:
    declared = declaration_of(credit_forecast)
    assert declared is not None
    assert set(declared.raises) == set(HistoryError.__subclasses__())


def test_a_history_read_from_the_data_set_is_forecast_as_json() -> None:
    _customer, history = next(histories.read_histories())
    received = msgspec.convert(json.loads(histories.to_json(history)), History)
    answer = json.loads(msgspec.json.encode(credit_forecast(received)))
    assert msgspec.convert(answer, Forecast) == credit_forecast(history)
    assert answer["month"] == "2005-10"
