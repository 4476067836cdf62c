"""OpenAI-compatible servers: requests that survive faults, replies that are paid for once, judges."""
