"""All errors that maskmill raises on purpose.

    MaskmillError
    ├── SetupError               the environment must be corrected before work can start
    │   ├── SettingsError        a setting is missing, malformed or contradicts another
    │   ├── ConfirmationNeeded   a large job was not confirmed
    │   ├── PlacementError       the machine lacks the requested cores or memory
    │   ├── BundleError          a model bundle is not usable
    │   │   ├── BundleNotFound   no bundle, or no matching variant, at the given place
    │   │   └── DigestMismatch   a file differs from its description
    │   └── StandaloneError      an embedded service did not start or stop
    ├── ServiceError             a service failed or refused a request
    │   ├── BrokerUnavailable    (retryable) Redis cannot be reached or is full
    │   ├── StoreUnavailable     (retryable) S3 cannot be reached or answered 5xx
    │   ├── HubUnavailable       (retryable) the model hub cannot be reached or broke off
    │   ├── NotificationFailed   a job notification was not accepted
    │   ├── QuotaExceeded        S3 has no space left for us
    │   └── AccessDenied         a service refused a right, or an address is not on the allow-list
    │       ├── CredentialsRefused   S3 does not know the key, secret or token of this process
    │       └── ClockSkewed          the clock of this machine differs too much from that of S3
    ├── ContractError            data of another version, or changed by another program
    │   ├── BadMessage           a message that this version cannot or must not read
    │   ├── RecordDamaged        a key in Redis holds something else than maskmill stores
    │   ├── JobNotFound          no such job in this Redis
    │   ├── JobUnreadable        the record of one job is damaged
    │   ├── JobStateError        the request is not possible in the job's state
    │   └── OutputCollision      two inputs have the same output key
    ├── SourceError              the source is empty, malformed or unreadable
    └── ImageError               one image fails: outcome `failed` with the error's code
        ├── ObjectMissing        missing
        ├── ObjectArchived       archived
        ├── InvalidKey           invalid_key
        ├── EmptyObject          empty
        ├── TooLarge             too_large
        ├── Undecodable          undecodable
        ├── UnsupportedFormat    unsupported_format
        ├── BackgroundUnusable   background
        ├── StoreFailed          store_failed
        └── InferenceFailed      inference_failed

`code` is stable, for programs that read it. `retryable` says whether the same call may succeed later. Commands print
the error and exit with code 1.
"""

from __future__ import annotations


class MaskmillError(Exception):
    """Root of all errors raised on purpose. The message names the cause and the remedy."""

    code = "error"
    retryable = False


class SetupError(MaskmillError):
    """Raised before work starts, when the installation or the environment must be corrected first.

    For example: an optional package is missing, or a file cannot be written.
    """

    code = "setup"


class SettingsError(SetupError):
    """Raised when a setting is missing, unknown, malformed or contradicts another. Correct the named variable."""

    code = "settings"


class ConfirmationNeeded(SetupError):
    """Raised when a large job is declined, or has no terminal to confirm it on. Check `--dry-run`, then add `--yes`."""

    code = "confirmation_needed"


class PlacementError(SetupError):
    """Raised when the machine cannot provide the requested cores, threads, streams or memory.

    Lower the named `MASKMILL_PLAN__` setting, or give the process more cores or memory.
    """

    code = "placement"


class BundleError(SetupError):
    """Raised when a model bundle cannot be read, written or compiled. Package it again, or choose another."""

    code = "bundle"


class BundleNotFound(BundleError):
    """Raised when the given place holds no bundle or no variant with the requested name, size and precision.

    Correct the named `MASKMILL_MODEL__` setting.
    """

    code = "bundle_not_found"


class DigestMismatch(BundleError):
    """Raised when a file differs from the digest or the size that describes it.

    Copy, download or package the file again. Also raised for the files of an S3 Inventory.
    """

    code = "digest_mismatch"


class StandaloneError(SetupError):
    """Raised when an embedded service does not start or stop, or another process uses its data.

    The message gives the cause, or quotes the end of the service's log.
    """

    code = "standalone"


class ServiceError(MaskmillError):
    """Raised when a service answers with an error for which no subclass exists. The message quotes the answer."""

    code = "service"


class BrokerUnavailable(ServiceError):
    """Raised when Redis cannot be reached, does not answer, or has reached its memory limit.

    Check that it runs, `MASKMILL_REDIS__URL` and its `maxmemory`. Nothing is lost: retry later.
    """

    code = "broker_unavailable"
    retryable = True


class StoreUnavailable(ServiceError):
    """Raised when S3 cannot be reached, throttles, or answers with a server error after all attempts. Retry later."""

    code = "store_unavailable"
    retryable = True

    def __init__(self, message: str = "", *, of_object: bool = False, writing: bool = False, bucket: str = "") -> None:
        """Describe the error.

        Args:
            message: names the URL and the answer.
            of_object: S3 answered, so that the object alone may be broken; False: no answer, or S3 throttles.
            writing: the object was being written.
            bucket: the one that was asked for.
        """
        super().__init__(message)
        self.of_object, self.writing, self.bucket = of_object, writing, bucket


class HubUnavailable(ServiceError):
    """Raised when the model hub cannot be reached, breaks off, or gives an invalid answer.

    Check the network, the proxy and `HF_ENDPOINT`, or copy the files to a folder and use that as the model source.
    """

    code = "hub_unavailable"
    retryable = True


class NotificationFailed(ServiceError):
    """Raised when the receiver of a job notification refuses it, or does not accept it after all attempts.

    The job is not affected. Check the address given with `--notify` and its server.
    """

    code = "notification_failed"


class QuotaExceeded(ServiceError):
    """Raised when S3 refuses a write because the quota of the bucket or user, or the disk of the server, is full.

    Free space or raise the quota, then run `producer retry`.
    """

    code = "quota_exceeded"


class AccessDenied(ServiceError):
    """Raised when a service refuses our credentials or a right, or an address is not on the allow-list.

    Correct the credentials and their rights, or extend `MASKMILL_S3__ALLOW`.
    """

    code = "access_denied"


class CredentialsRefused(AccessDenied):
    """Raised when S3 does not accept the key, secret or token of this process, whatever it asks for.

    It says nothing about an object or a job: another node may have the right key. Correct the credentials.
    """

    code = "credentials_refused"


class ClockSkewed(AccessDenied):
    """Raised when S3 refuses a request because the clock of this machine is wrong. Set it, with NTP."""

    code = "clock_skewed"


CALLER_ERRORS = (CredentialsRefused, ClockSkewed)
"""Errors that concern this process alone: what it does for jobs belongs to another node until they are mended."""


class ContractError(MaskmillError):
    """Raised when stored data was written by another version or changed by another program.

    Upgrade the older side, or restore the named object.
    """

    code = "contract"


class BadMessage(ContractError):
    """Raised when a message is malformed, not allowed, or of a version that this worker does not read.

    Upgrade the workers before the producers.
    """

    code = "bad_message"


class JobNotFound(ContractError):
    """Raised when this Redis has no job with the given id: the id is wrong, or the record has expired or was lost.

    Check the id and `MASKMILL_REDIS__URL`; rebuild a lost record with `producer recover`.
    """

    code = "job_not_found"


class JobUnreadable(ContractError):
    """Raised when a key of a job in Redis has a type, size or content that maskmill never writes.

    It concerns this job alone. Upgrade maskmill here if a newer version wrote the record; otherwise remove it with
    `producer forget JOB`, and rebuild the job from its files in S3 with `producer recover`.
    """

    code = "job_unreadable"

    def __init__(self, job: str, reason: str) -> None:
        """Describe the error; `reason` says what is wrong, without the content of the record."""
        super().__init__(
            f"job {job} is unreadable: {reason}; upgrade maskmill here if a newer version wrote the record, otherwise "
            f"`producer forget {job}` removes it, and `producer recover {job} DEST` rebuilds it from S3"
        )
        self.job, self.reason = job, reason


class RecordDamaged(ContractError):
    """Raised when Redis cannot carry out a call because a key holds another type or content than maskmill stores."""

    code = "record_damaged"


class JobStateError(ContractError):
    """Raised when a job is in a state that does not allow the request. The message names the state and what to do."""

    code = "job_state"


class OutputCollision(ContractError):
    """Raised at submission when two inputs have the same output key. Rename one, or submit them separately."""

    code = "output_collision"


class SourceError(MaskmillError):
    """Raised when a source is empty, malformed or cannot be read. Correct the given path or URL."""

    code = "source"


class ImageError(MaskmillError):
    """Raised when one image cannot be processed. It gets the outcome `failed` with this code; its chunk continues."""

    code = "image"


class ObjectMissing(ImageError):
    """Raised when an object does not exist (any more). Upload it again, or submit without it."""

    code = "missing"


class ObjectArchived(ImageError):
    """Raised when an object is in an archive storage class (S3 Glacier). Restore it, then run `producer retry`."""

    code = "archived"


class InvalidKey(ImageError):
    """Raised when a key is empty or longer than the 1,024 bytes that S3 allows. Rename the object."""

    code = "invalid_key"


class StoreFailed(ImageError):
    """Raised when S3 fails for this object again and again while it serves others. Repair or upload it again."""

    code = "store_failed"


class EmptyObject(ImageError):
    """Raised when an object has no bytes. Upload it again."""

    code = "empty"


class TooLarge(ImageError):
    """Raised when an object has more bytes, or an image more pixels, than the limits allow.

    Raise `MASKMILL_LIMITS__MAX_OBJECT_MIB` or `MASKMILL_LIMITS__MAX_MEGAPIXELS`; for an output that its format cannot
    hold, lower `--max-side`.
    """

    code = "too_large"


class Undecodable(ImageError):
    """Raised when the bytes are not an image, or the image is damaged. Export or upload it again."""

    code = "undecodable"


class UnsupportedFormat(ImageError):
    """Raised when an image has a format or mode that maskmill does not read. Convert it to 8-bit JPEG or PNG first."""

    code = "unsupported_format"


class InferenceFailed(ImageError):
    """Raised when the network fails on an image. Run it again with `producer retry`; report it if it fails again."""

    code = "inference_failed"


class BackgroundUnusable(ImageError):
    """Raised when the background image is missing, not an image, or was replaced after submission. Submit again."""

    code = "background"
