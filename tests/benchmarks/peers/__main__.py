"""`python -m tests.benchmarks.peers`"""

from tests.benchmarks.peers import main

main()
