"""Every limit on bytes that come from outside, each with its unit and its reason. Nothing else decides a size."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * 1024

CHUNK_BYTES = 64 * KIB
"""Default chunk of a file: fits every common broker's default packet limit with room for the envelope."""

MAX_CHUNK_BYTES = 120 * KIB
"""Largest chunk allowed: AWS IoT Core refuses payloads over 128 KB, and the envelope needs a few hundred bytes."""

MAX_ENVELOPE_BYTES = 128 * 1000
"""Largest message we publish or accept on any topic (the same AWS limit)."""

MAX_MANIFEST_BYTES = 1 * MIB
"""A manifest of 1 MiB pins about 14,000 chunks, which is 900 MB at the default chunk size."""

MAX_DOCUMENT_BYTES = 64 * KIB
"""Largest channel, family or job document: they are small decisions, read by every device at every change."""

MAX_MESSAGE_BYTES = 64 * KIB
"""Largest telemetry window, event or reported state."""

MAX_ROSTER_BYTES = 256 * KIB
"""One roster: a place takes 15 bytes, so a site may have 16,000 devices."""

MAX_EXCERPT_LINES = 50
"""Lines of a device's log that travel with a report of a release it gave up: a traceback with what led to it."""

MAX_EXCERPT_BYTES = 8 * KIB
"""Those lines together: an eighth of what one message may hold, and such reports are rare."""

MAX_ENROLLMENT_BYTES = 16 * KIB
"""A request for a certificate, or its answer: two certificates and a certification request in base64 are 2 KiB."""

MAX_CLAIM_BYTES = 32 * KIB
"""A claim file: three certificates and a key in PEM are 3 KiB."""

MAX_CONFIG_BYTES = 256 * KIB
"""Largest configuration, profile, task or recipe file: a person wrote it."""

MAX_FILES = 4096
"""Files in one bundle; beyond it the manifest itself would not fit its limit."""

MAX_BUNDLE_BYTES = 4 * 1024 * MIB
"""Sum of the file sizes of one bundle; the largest box in the profiles has 8 GB of memory."""

MAX_DELTAS = MAX_FILES
"""Deltas towards one release; beyond it their list would not fit a manifest's limit either."""

MAX_DELTA_OPERATIONS = 65_536
"""Operations of one delta: sixteen thousand tensors that all changed, with what lies between them."""

MAX_DELTA_CONTROL_BYTES = 2 * MIB
"""Operations of one delta before compression; each takes at most 25 bytes."""

MAX_PATH_CHARS = 200
"""Length of a path inside a bundle: below every file system's limit once the store's own prefix is added."""

MAX_PATH_DEPTH = 6
"""Folders deep inside a bundle; ours are at most two."""

MAX_VARIANTS = 32
"""Rungs of one ladder."""

MAX_THRESHOLDS = 16
"""Conformal thresholds of one variant: a few scores at a few error rates."""

MAX_TENSORS = 64
"""Inputs or outputs of one model."""

MAX_CONSTANTS = 4096
"""Numbers of one constant input: a sampling rate is one, a table belongs into the model."""

MAX_CHARSET = 100_000
"""Characters of one alphabet: all of Unicode's assigned ones are 155,000, the largest recognizers know 20,000."""

MAX_KNOTS = 64
"""Points of one mapping of scores."""

MAX_RANK = 8
"""Dimensions of one tensor: what both engines accept."""

MAX_STEPS = 16
"""Steps of processing before a model, or behind it: common ones have two to five."""

MAX_SIDE = 16_384
"""Pixels along one side of an image: cameras have half of it, and resampling costs time for each."""

MAX_STEP_ELEMENTS = 16 * MIB
"""Elements that one step of processing may make: 64 MiB in float32, a 2k RGB image."""

MAX_FFT = 65_536
"""Points of one Fourier transform: more than a second of sound at 48 kHz."""

MAX_BANDS = 512
"""Bands of a spectrogram, or channels that are normalized one by one."""

MAX_GUARDED_FEATURES = 256
"""Features of one input with guards of their own."""

MAX_CATEGORIES = 1024
"""Categories of one feature: a postal code is no category, a machine's state is."""

MAX_DETECTIONS = 1000
"""Boxes, or best classes, of one answer."""

MAX_CANDIDATES = 4096
"""Boxes that are compared with each other for one image, the likeliest: comparing them costs their square."""

MAX_NODES = 16
"""Nodes of one pipeline."""

MAX_PIPELINE_BYTES = 64 * KIB
"""One pipeline's graph: a node takes a few hundred bytes."""

MAX_LABELS = 100_000
"""Class names in one manifest; the manifest's own size limit binds earlier."""

MAX_SERIAL = 2**53 - 1
"""Largest serial of a channel or a family: every JSON reader and database holds it exactly. 1 follows it."""

MAX_TAGS = 32
"""Tags on one device, or selectors in one document."""

MAX_SAMPLE_TAGS = 8
"""Tags of requests that one worker counts apart, beside all others together. With `MAX_SAMPLE_TAG_BYTES` for each, they
take 36 KiB of a telemetry window's 64; the histograms of all requests have what is left."""

MAX_SAMPLE_TAG_CHARS = 32
"""Length of a tag of requests: it stands in a window behind each histogram's name."""

MAX_STREAM_CHARS = 128
"""Length of a stream's name, as Triton bounds it."""

MAX_SAMPLE_TAG_BYTES = 4 * KIB
"""Histograms of one tag in a telemetry window: two dozen of ten bins. Those beyond it are of all requests only."""

MAX_TENSOR_BYTES = 64 * MIB
"""Bytes of all tensors of one inference request; a 4k RGB image in float32 is 100 MB and belongs in uint8."""

MAX_ARCHIVE_MEMBERS = 256
"""Arrays in one .npz archive of golden or probe samples."""

MAX_ARCHIVE_BYTES = 256 * MIB
"""Sum of the declared sizes of one .npz archive, checked before anything is inflated."""

MAX_NESTING = 32
"""Nesting of JSON values: our documents need six."""

MAX_REQUEST_BYTES = MAX_TENSOR_BYTES + MIB
"""Body of one inference request: its tensors in binary and their description."""

MAX_SERVED_BYTES = 8 * MIB
"""A served request with its answer, as a shadow is shown it or a capture keeps it: 1080p in RGB is 6 MiB."""

MAX_REQUEST_JSON_BYTES = 16 * MIB
"""JSON of one inference request; parsed numbers take ten times their text, and larger tensors belong in binary."""

MAX_BUFFERED_BYTES = 2 * MAX_REQUEST_BYTES
"""Bodies being received at one time, all connections together; beyond it new ones are asked to come back."""

MAX_DATA_BYTES = 4 * MIB
"""One request or answer on a data topic: a 1024 x 1024 RGB image in bytes; they wait in the supervisor's memory."""

MAX_QUEUED_DATA_BYTES = 16 * MIB
"""All requests that wait on the data topics of one slot; the supervisor itself takes 30 MB."""

MAX_HEAD_BYTES = 32 * KIB
"""Request line and headers of one HTTP request; common servers allow 8 to 64 KiB."""

MAX_HEAD_FIELDS = 200
"""Headers of one HTTP request; common servers allow 100 to 1000."""

MAX_TARGET_BYTES = 8 * KIB
"""Path and query of one HTTP request: what RFC 9112 recommends to support."""

MAX_CONNECTIONS = 512
"""Open HTTP connections of one worker: below the usual 1024 file descriptors of a process."""
