"""Clients for the command line: addresses from the URLs, credentials from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import UsageError
