"""The depot: a service that answers devices' requests for bytes. Holds no key and no database. Read `service.py`
first."""
