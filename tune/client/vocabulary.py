"""List words for prompts that are sent as text: each has four letters and is one token."""

_TEXT = """
this that with from have self will your else more they data name true null time over type part work
when been were file year some said like also than just them into what list case only back need user
then test make long read form want size look know hand most text show find used play help pass down
even item last high line does here very call well many good much open next game path each sign best
same made mark main take free real head must week team fact home left page both life book base date
care full turn body keep come hard port feel less sure site cost load days give copy lead step four
room once talk grow mass area kind side
"""

ONE_TOKEN_WORDS = tuple(_TEXT.split())
"""Words of one token each in the vocabulary of Llama 3, after a space or at the start of a line.

Most other vocabularies have them too, for they are common. The answer's usage says what a server counted.
"""
