"""What holds for all tests: how long an example takes is the machine's business, not the code's."""

from hypothesis import HealthCheck, settings

settings.register_profile("pyetcd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pyetcd")
