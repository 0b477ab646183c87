"""Names by which modules that are not verbs yet know latlas.verbs; goes with them."""

from latlas.verbs.write import file_names, picture, write_missing

__all__ = ["file_names", "picture", "write_missing"]
