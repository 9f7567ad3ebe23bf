"""`manage.py backup` and `manage.py restore`: the database, the models store and the keys, as one folder.

manifest.json                     what it is, and the SHA-256 and size of every file
database.sqlite3 | database.dump  SQLite's own copy, or pg_dump's custom format
store/<slug>/<number>/            the versions the database knows, and no others
store/_datasets/<sha256>          the uploads the database knows
var/keys/, var/demo.json          mode 0600, as everything in here
"""

from kalimtak.backup.make import backup_make
from kalimtak.backup.restore import Restored, backup_restore

__all__ = ["Restored", "backup_make", "backup_restore"]
