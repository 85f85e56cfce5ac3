"""A judge for the proxy in front of an S3 API: lets through what an IAM policy allows, as AWS documents it.

moto's own enforcement knows neither conditions nor the rights that tags, ACLs and copies take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from tests.support.s3_proxy import Asked, Refusal

Policy: TypeAlias = dict[str, Any]

_KEY_IN_BODY = re.compile(rb"<Key>(.*?)</Key>")
_PLAIN = "Access Denied"


class PolicyJudge:
    """Denies what a policy does not allow.

    :param policy: an identity-based policy; ``Allow`` only, exact actions, conditions on ``s3:prefix``.
    :param kms_key: ARN of the key that encrypted objects are encrypted with.
    :param says_why: as AWS does within an account, or only "Access Denied".
    :param hides_missing: answer 403 for every missing object, as some stores do where listing is bound to a
        prefix; AWS does it where the missing object may not be listed.
    """

    def __init__(
        self, policy: Policy, *, kms_key: str = "", says_why: bool = True, hides_missing: bool = False
    ) -> None:
        self.policy = policy
        self.denied: list[str] = []
        self._kms_key = kms_key
        self._says_why = says_why
        self._hides_missing = hides_missing
        self._encrypted: set[str] = set()

    def __call__(self, asked: Asked, status: int | None) -> Refusal | None:
        """Judge a request before it is passed on, and a 404 as AWS does where one may not list."""
        needed = _needed(asked)
        if status is None:
            needed += [(action, self._kms_key, "") for action in self._kms(asked)]
        elif status == 404 and any(action == "s3:GetObject" for action, _, _ in needed):
            resource = next(resource for action, resource, _ in needed if action == "s3:GetObject")
            bucket, _, key = resource.partition("/")
            needed = [("s3:ListBucket", bucket, "" if self._hides_missing else key)]
        else:
            return None
        return next(self._refusals(needed, asked), None)

    def _refusals(self, needed: list[tuple[str, str, str]], asked: Asked) -> Iterator[Refusal]:
        for action, resource, prefix in needed:
            if any(_allows(statement, action, resource, prefix) for statement in self.policy["Statement"]):
                continue
            self.denied.append(action)
            said = (
                f"User: arn:aws:iam::123456789012:user/test is not authorized to perform: {action} "
                f'on resource: "{resource}" because no identity-based policy allows the {action} action'
            )
            message = said if self._says_why else _PLAIN
            if action == "s3:DeleteObject" and asked.method == "POST":
                yield _RefusedDeletion(200, "AccessDenied", message=message)
            else:
                yield Refusal(403, "AccessDenied", message=message)

    def _kms(self, asked: Asked) -> list[str]:
        path = urlsplit(asked.path).path
        source = "/" + asked.headers.get("x-amz-copy-source", "").lstrip("/")
        actions = ["kms:Decrypt"] if {path if asked.method == "GET" else "", source} & self._encrypted else []
        if asked.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
            self._encrypted.add(path)
            actions.append("kms:GenerateDataKey")
        return actions


class _RefusedDeletion(Refusal):
    @property
    @override
    def body(self) -> bytes:
        """The refusal of one object of several, inside of an answer that says 200."""
        error = f"<Error><Key>k</Key><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        return f"<DeleteResult>{error}</DeleteResult>".encode()


def without(policy: Policy, action: str) -> Policy:
    """Return the policy with one action taken out."""
    kept = [
        {**one, "Action": [each for each in one["Action"] if each != action]} for one in policy["Statement"]
    ]
    return {**policy, "Statement": kept}


def actions_of(policy: Policy) -> list[str]:
    """Return all actions that a policy names."""
    return sorted({action for statement in policy["Statement"] for action in statement["Action"]})


def _needed(asked: Asked) -> list[tuple[str, str, str]]:
    """Return what a request takes: action, resource, and the prefix of a listing."""
    parts = urlsplit(asked.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    home = f"arn:aws:s3:::{bucket}"
    if not key:
        if asked.method == "POST":
            keys = (found.decode() for found in _KEY_IN_BODY.findall(asked.body))
            return [("s3:DeleteObject", f"{home}/{found}", "") for found in keys]
        action = "s3:ListBucketMultipartUploads" if "uploads" in query else "s3:ListBucket"
        return [(action, home, query.get("prefix", [""])[0])]
    return [(action, resource, "") for action, resource in _of_object(asked, query, f"{home}/{key}")]


def _of_object(asked: Asked, query: Mapping[str, Any], resource: str) -> Iterator[tuple[str, str]]:
    if asked.method in {"GET", "HEAD"}:
        yield "s3:GetObject", resource
    elif asked.method == "DELETE":
        yield ("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"), resource
    else:
        if source := asked.headers.get("x-amz-copy-source"):
            yield "s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}"
        yield "s3:PutObject", resource
        if asked.headers.get("x-amz-acl"):
            yield "s3:PutObjectAcl", resource
        if asked.headers.get("x-amz-tagging"):
            yield "s3:PutObjectTagging", resource


def _allows(statement: Mapping[str, Any], action: str, resource: str, prefix: str) -> bool:
    if action not in statement["Action"]:
        return False
    if not any(fnmatchcase(resource, pattern) for pattern in statement["Resource"]):
        return False
    condition = statement.get("Condition")
    if condition is None:
        return True
    return any(fnmatchcase(prefix, pattern) for pattern in condition["StringLike"]["s3:prefix"])
