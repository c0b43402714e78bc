"""Every error that fedtsd raises on purpose.

FedtsdError
├── InputError             something the user gave is wrong; one line, exit code 2
│   ├── ConfigError        a key or a value of the config
│   ├── DataError          a data set: missing, broken, not reachable
│   └── RunFolderError     a run folder: finished, missing, or a checkpoint that is damaged
├── StorageError           a disk that is full or read-only; one line, exit code 1
├── EngineError            clients could not work: a process that ran them died
└── ProtocolError          a reply that the channel refuses
    └── PrivacyError       a reply that holds something which must stay on the client

Interrupted (KeyboardInterrupt)  Ctrl-C
Terminated (KeyboardInterrupt)   SIGTERM: ends a run like Ctrl-C, with another exit code

An `InputError` names the field or file, the value and what is legal, and is raised before work
starts. Anything else is a defect of ours and keeps its traceback.
"""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run.

    A class of its own: a plain KeyboardInterrupt that passed through the exec() of a string, as in
    an import of dataclasses, makes CPython kill itself by SIGINT at exit, although it was caught.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run like Ctrl-C, with another exit code."""


class FedtsdError(Exception):
    """Base of all errors raised on purpose."""


class InputError(FedtsdError):
    """Something the user gave is wrong; the message is one line that says what is legal."""


class ConfigError(InputError):
    """A config key or value is not legal."""


class DataError(InputError):
    """A data set is missing, broken or cannot be fetched."""


class RunFolderError(InputError):
    """A run folder cannot be used as asked: finished, absent, or damaged."""


class StorageError(FedtsdError):
    """The disk refuses what has to be kept: no space, or no right to write."""


class EngineError(FedtsdError):
    """Clients could not do their work; the message names them."""


class ProtocolError(FedtsdError):
    """A reply is not what the request asked for."""


class PrivacyError(ProtocolError):
    """A reply carries tensors that must stay on the client."""
