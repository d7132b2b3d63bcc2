"""What is written: English words, numbers, and Chinese characters, in random order."""

import numpy as np

_PROSE = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so up said what its about than into them
can only other time new some could these two may first then do any like my now over such our man me even most made after
also did many off before must well back through years much where your way down should because long each just state those
people too mr how little good world make very year still see own work men day get here old life both between being under
three never know same last another while us might great go come since against right came take used himself few house
during without again place american around however home small found mrs thought went say part once general high upon
school every company invoice total amount number street road paper receipt order price delivery account customer service
payment balance report section chapter figure table contents address telephone university department information
"""
WORDS = _PROSE.split()

CHARACTERS = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心学么之都好看起发当没成只如"
    "事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很给名法间斯知世什两次使身者被高已亲其进此话常与"
    "活正感见明问力理尔点文几定本公特做外孩相西果走将月十实向声车全信重三机工物气每并别真打太新比才便夫再书部水像眼等体却加电主界门利海受听表德"
    "少克代员许先口由死安写性马光白或住难望教命花结乐色更拉东神记处让母父应直字场平报友关放至张认接告入笑内英军候民岁往何度山觉路带万男边风解叫"
    "任金快原吃妈变通师立象数四失满战远格士音轻目条呢病始达深完今提求清王化空业思切怎非找片罗钱语元喜曾离飞科言干流欢约各即指合反题必该论交终林"
)


def word(draw: np.random.Generator) -> str:
    """Return a word as it stands in prose, at the start of a sentence, in capitals, or a number."""
    kind = draw.random()
    if kind < 0.08:
        return str(draw.integers(1, 10 ** int(draw.integers(1, 5))))
    chosen = WORDS[draw.integers(len(WORDS))]
    if kind < 0.2:
        return chosen.upper()
    text = chosen.capitalize() if kind < 0.4 else chosen
    return text + str(draw.choice([",", ".", ":", ";"])) if draw.random() < 0.12 else text


def english(draw: np.random.Generator, *, words: int) -> str:
    """Return some words; at least one of them has letters, since numbers may read the same upside down."""
    chosen = [word(draw) for _ in range(words)]
    if not any(character.isalpha() for one in chosen for character in one):
        chosen[0] = WORDS[draw.integers(len(WORDS))]
    return " ".join(chosen)


def chinese(draw: np.random.Generator, *, characters: int) -> str:
    """Return frequent characters, now and then with a comma between them."""
    chosen = [CHARACTERS[draw.integers(len(CHARACTERS))] for _ in range(characters)]
    if characters > 5 and draw.random() < 0.3:
        chosen[int(draw.integers(2, characters - 2))] = "，"
    return "".join(chosen)
