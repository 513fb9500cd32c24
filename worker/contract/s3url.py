"""Name a place in S3. Text becomes an `S3Url` once, where it enters the program; from there on no module parses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from worker.contract.errors import SourceError
from worker.contract.printable import is_utf8


@dataclass(frozen=True)
class S3Url:
    """`s3://bucket/key`: an object, or a folder if the key is empty or ends in a slash.

    As a field of a pydantic model it is read from its text and written as its text.
    """

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> S3Url:
        """Read `s3://bucket/key`.

        Raises:
            SourceError: `text` does not have that form.
        """
        if not isinstance(text, str):  # a program that is not type-checked passes a path
            raise SourceError(f"not an S3 URL: {text!r:.80}; write 's3://bucket/prefix/'")
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not bucket:
            raise SourceError(f"not an S3 URL: {text!r}; write s3://bucket/prefix/")
        if not is_utf8(text):
            raise SourceError(f"not an S3 URL: {text!r} is not valid Unicode text, so it cannot name an object")
        return cls(bucket, key)

    @classmethod
    def folder(cls, text: str) -> S3Url:
        """Read `s3://bucket/prefix` as a folder.

        Raises:
            SourceError: `text` does not have that form.
        """
        return cls.parse(text).as_folder()

    def as_folder(self) -> S3Url:
        """Return the URL with a closing slash; an empty key stays empty, because the bucket itself is a folder."""
        return S3Url(self.bucket, f"{self.key}/") if self.key and not self.key.endswith("/") else self

    def __truediv__(self, key: str) -> S3Url:
        """Return the place of `key` under this folder. Plain concatenation: S3 keys are not paths."""
        return S3Url(self.bucket, self.key + key)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate text or an `S3Url`; write the text in Python dictionaries and in JSON."""
        written = core_schema.to_string_ser_schema(when_used="always")
        return core_schema.no_info_plain_validator_function(cls._validated, serialization=written)

    @classmethod
    def _validated(cls, value: Any) -> S3Url:
        if isinstance(value, cls):
            return value
        try:
            return cls.parse(value)
        except SourceError as error:  # pydantic reports a ValueError with the name of the field
            raise ValueError("not an S3 URL; write s3://bucket/prefix/") from error
