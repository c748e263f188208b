"""Node checks, how they are run, and what follows from them. Standard library only.

All of this starts inside a prolog or a HealthCheckProgram, as `/usr/bin/python3 -I -S`, also under Python 3.9. So
values are NamedTuples (dataclasses cost 12 ms to import and have no slots there), and files are opened by `open`, not
pathlib (8 ms): the whole fast set shall take less time than others take to start their shell.
"""
