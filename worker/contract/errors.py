"""Everything maskmill raises on purpose.

    MaskmillError
    ├── SetupError               exit code 1: something must be put right before work can start
    │   ├── SettingsError        a setting is missing, malformed or contradicts another
    │   ├── ConfirmationNeeded   a large job, and nobody to ask whether it is meant
    │   ├── PlacementError       the machine cannot give what was asked of it
    │   ├── BundleError          a model bundle is not usable
    │   │   ├── BundleNotFound
    │   │   └── DigestMismatch
    │   └── StandaloneError      an embedded service did not start
    ├── ServiceError             a service did not do its part
    │   ├── BrokerUnavailable    (retryable) Redis cannot be reached
    │   ├── StoreUnavailable     (retryable) S3 cannot be reached or answered 5xx
    │   ├── HubUnavailable       (retryable) the model hub cannot be reached or broke off
    │   ├── NotificationFailed   a message about a job was not taken
    │   └── AccessDenied         a service refused our credentials, or a place is not on the allow-list
    ├── ContractError
    │   ├── BadMessage           a message that this version cannot or must not read
    │   ├── JobNotFound
    │   ├── JobStateError        a job is not in the state that the request needs
    │   └── OutputCollision      two inputs would write one output
    ├── SourceError              nothing to submit, or the source cannot be read
    └── ImageError               costs one image; becomes the outcome `failed` with the error's code
        ├── ObjectMissing        missing
        ├── EmptyObject          empty
        ├── TooLarge             too_large
        ├── Undecodable          undecodable
        ├── UnsupportedFormat    unsupported_format
        ├── BackgroundUnusable   background
        └── InferenceFailed      inference_failed

`code` is stable and meant for machines; `retryable` says whether the same call may succeed later.
"""

from __future__ import annotations


class MaskmillError(Exception):
    """Root of all errors raised on purpose; the message names the thing and the remedy."""

    code = "error"
    retryable = False


class SetupError(MaskmillError):
    """Something must be put right before work can start."""

    code = "setup"


class SettingsError(SetupError):
    """A setting is missing, malformed or contradicts another."""

    code = "settings"


class ConfirmationNeeded(SetupError):
    """A large job, and nobody to ask whether it is meant."""

    code = "confirmation_needed"


class PlacementError(SetupError):
    """The machine cannot give the cores or the memory that were asked for."""

    code = "placement"


class BundleError(SetupError):
    """A model bundle is not usable."""

    code = "bundle"


class BundleNotFound(BundleError):
    """No bundle, or no variant of it, at the place named."""

    code = "bundle_not_found"


class DigestMismatch(BundleError):
    """A model file is not the one its manifest describes."""

    code = "digest_mismatch"


class StandaloneError(SetupError):
    """An embedded service did not start or stop as it should."""

    code = "standalone"


class ServiceError(MaskmillError):
    """A service did not do its part."""

    code = "service"


class BrokerUnavailable(ServiceError):
    """Redis cannot be reached or does not answer."""

    code = "broker_unavailable"
    retryable = True


class StoreUnavailable(ServiceError):
    """S3 cannot be reached, or answered with a server error."""

    code = "store_unavailable"
    retryable = True


class HubUnavailable(ServiceError):
    """The model hub cannot be reached, or does not answer as a hub does."""

    code = "hub_unavailable"
    retryable = True


class NotificationFailed(ServiceError):
    """A message about a job was not taken by the address it was sent to."""

    code = "notification_failed"


class AccessDenied(ServiceError):
    """A service refused our credentials, or a place is not on the allow-list."""

    code = "access_denied"


class ContractError(MaskmillError):
    """The two sides do not agree."""

    code = "contract"


class BadMessage(ContractError):
    """A message that this version cannot, or must not, read."""

    code = "bad_message"


class JobNotFound(ContractError):
    """No job of that id is known to this Redis."""

    code = "job_not_found"


class JobStateError(ContractError):
    """A job is not in the state that the request needs."""

    code = "job_state"


class OutputCollision(ContractError):
    """Two inputs would write the same output."""

    code = "output_collision"


class SourceError(MaskmillError):
    """There is nothing to submit, or the source cannot be read."""

    code = "source"


class ImageError(MaskmillError):
    """Costs one image: it becomes the outcome `failed` with this code, and the chunk goes on."""

    code = "image"


class ObjectMissing(ImageError):
    """The object is not, or no longer, in the bucket."""

    code = "missing"


class EmptyObject(ImageError):
    """The object has no bytes."""

    code = "empty"


class TooLarge(ImageError):
    """The object has more bytes, or the picture more pixels, than the limits allow."""

    code = "too_large"


class Undecodable(ImageError):
    """The bytes are not a picture, or a damaged one."""

    code = "undecodable"


class UnsupportedFormat(ImageError):
    """A picture in a format or mode that is not read here."""

    code = "unsupported_format"


class InferenceFailed(ImageError):
    """The model raised on this image."""

    code = "inference_failed"


class BackgroundUnusable(ImageError):
    """The picture to put behind the subject is missing, is no picture, or is another one than at submission."""

    code = "background"
