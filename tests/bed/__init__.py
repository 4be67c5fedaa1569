"""The test bed: a throwaway PostgreSQL with any release's schema, an engine, a stand-in QGIS image, the web API."""


class BedError(Exception):
    """What the bed needs is not there, or does not work; the message says what."""
