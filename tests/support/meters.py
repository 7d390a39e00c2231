"""The numbers that a program's provider of OpenTelemetry has, in a process that is several programs, one after another."""

from collections.abc import Iterator
from typing import Any

import opentelemetry.metrics._internal as api
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.util._once import Once


def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a program, which has not chosen a provider, and may do so once."""
    monkeypatch.setattr(api, "_METER_PROVIDER", None)
    monkeypatch.setattr(api, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(api, "_PROXY_METER_PROVIDER", api._ProxyMeterProvider())


class Numbers:
    """What is read of a real provider."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Any]:
        """All that there are, as the SDK tells them, by name."""
        read = self._reader.get_metrics_data()
        scopes = [scope for each in (read.resource_metrics if read else ()) for scope in each.scope_metrics]
        return {
            metric.name: metric
            for scope in scopes
            if scope.scope.name == "millstream"
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[str, Any]:
        """The points of one, by the values of their attributes, in the order of their names."""
        metric = self.metrics().get(name)
        return {
            " ".join(str(value) for _, value in sorted(point.attributes.items())): point
            for point in (metric.data.data_points if metric else ())
        }

    def values(self, name: str) -> dict[str, float]:
        """What a counter has come to, or a state is."""
        return {key: point.value for key, point in self.points(name).items()}

    def counts(self, name: str) -> dict[str, int]:
        """How many times a histogram has."""
        return {key: point.count for key, point in self.points(name).items()}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Numbers]:
    """Those of a program that has chosen its provider."""
    no_provider(monkeypatch)
    numbers = Numbers()
    api.set_meter_provider(numbers.provider)
    yield numbers
    numbers.provider.shutdown()
