"""Reports of a run: terminal, JUnit XML, KTAP, JSON and one HTML file. Each is made from a `RunResult` alone.

``terminal.render``, ``junit.render``, ``ktap.render``, ``json.render`` and ``html.render`` return text;
``file.write`` puts it into a file as a whole or not at all. The same run gives the same text, times aside.
"""
