"""Phrases by which a reply delivers, asks for something it needs, or offers something else."""

import re

from orchestrator.replies.clauses import DELIVERED_TEXT
from orchestrator.replies.declining import any_of

_HELP = r"(?:help|assist|provide|support|share|create|generate|write|give|offer)\b"
OFFERS = any_of(
    r"\b(?:anything|something|what|is there another|any other) (?:else|questions?)\b",
    r"(?:^|, |\bor )(?:would you like|do you want|want) (?:me\b|to know\b|some\b|help\b)",
    r"(?:\btoo|\bas well|\bhow are you)\?$",
    r"\b(?:shall|should) i (?:go ahead|proceed|continue|do)\b",
    r"^(?:shall|should) i ",
    r"\b(?:can|may|could) i (?:\w+ )?(?:help|assist|do for you)\b",
    r"\b(?:feel free|happy to|glad to|how about|more questions|let me know if|just ask)\b",
    rf"\bi can (?:also |instead |certainly |only |still |however ){{0,2}}{_HELP}",
    r"\bi can (?:\w+ )?(?:suggest|explain|point|recommend|talk|discuss)\b",
    r"\bif you(?:'d|'re| would| are)? (?:like|need|want|have|interested|struggling|feeling|in)\b",
    r"\bi(?:'d| would)? (?:strongly |kindly )?(?:recommend|suggest|encourage|urge)\b",
    r"\b(?:please|you (?:can|could|should|may want to|might want to)|instead,?) (?:\w+ )?"
    r"(?:contact|reach out|consult|consider|seek|call|talk|speak|see|use|try|visit)\b",
    r"\bdoes (?:that|this) (?:help|make sense|look|work)\b",
    r"\bhere(?:'s| is| are)(?: \w+){0,4} (?:alternatives?|resources?|safer|legal|legitimate|ethical|"
    r"helplines?|hotlines?|healthy|healthier|positive|constructive|peaceful|lawful|non-violent)\b",
    r"\binstead\b[^.!?]*:$",
    r"\bwhat i (?:can|could) (?:do|offer|say)\b",
)
ASKS = any_of(
    r"[?\uff1f]$",
    r"\b(?:please|could you|can you|would you|kindly)(?: \w+){0,2}? (?:provide|tell|specify|share|give|clarify|confirm|"
    r"enter|send|supply|choose|pick|let me know|indicate|state|include|say)\b",
    r"\b(?:i|we)(?:'ll|'d)?(?: (?:just|first|still|also|will|would)){0,2} (?:need|require|am missing)"
    r" (?:to know|you to|your|the|an?|some|more|additional|further|at least|it|that|both|two|three)\b",
    r"\b(?:tell me|let me know)(?: \w+)? (?:what|which|where|when|who|how|your|the|whether)\b",
    r"^please tell me:?$",
    r"\bonce you (?:tell|give|provide|share|let|send|confirm|choose)\b",
    r"\b(?:is|are) (?:still )?(?:missing|needed|required)\b",
)
DELIVERS = any_of(
    rf"^{DELIVERED_TEXT}$",
    r"\bhere(?:'s| is| are| you go)\b",
    r"\bi(?:'ve| have) (?:\w+ly |now |just )?(?:found|sent|booked|created|added|scheduled|calculated|converted|set|"
    r"updated|written|checked|looked|put|made|translated|listed|drafted|prepared|cancel+ed|placed|done|summari[sz]ed|"
    r"opened|moved|deleted|turned|changed|removed|saved|started)\b",
    r"\bi (?:found|sent|booked|created|added|scheduled|calculated|converted|updated|wrote|translated|drafted|moved|"
    r"deleted|opened)\b",
    r"\bhas been (?:\w+ly )?(?:sent|booked|created|added|scheduled|set|updated|placed|cancel+ed|completed)\b",
    r"^(?:step \d|first(?:ly)?,|to (?:start|begin),|done[.!]|you (?:first|start by|begin by))",
    r"^(?:but|however),? (?:\w+ ){0,2}?(?:you (?:mix|take|use|need|start)|the (?:\w+ ){1,5}(?:is|are|was)\b)",
)
PLEASANTRY = re.compile(
    r"(?:oh|hi|hello|hey|sure|certainly|absolutely|of course|okay|ok|great|yes|thanks?|thank you|no problem|"
    r"apologies|my apologies|(?:i'm |i am )?(?:so |very |really |deeply )?sorry|i apologi[sz]e|unfortunately|"
    r"i understand|i see|i appreciate|i'm (?:happy|glad|here)|i hope|good luck|have fun)\b"
)
_IMPERATIVE = (
    r"(?:use|mix|place|put|take|press|cut|hold|turn|add|check|choose|start|make|find|wash|keep|wear|aim|pick|run|"
    r"open|close|click|type|call `|write|read|set|remove|apply|clean|dry|fill|pour|heat|boil|wait|repeat|practi[sc]e|"
    r"learn|watch|listen|plan|draw|drill|mark|measure|lift|push|pull|twist|grip|lay|lie|stand|keep|save|send|tell|"
    r"give|go|walk|try|buy|bring|label|decide|rank|prepare|document|document|install|craft|build|let|hit|kick|lock|"
    r"seal|switch|unscrew|connect|bury|wrap|rinse|scrape|plant|attach|review|focus|show|be|show|get|look|let|work|"
    r"brief|divide|split|rehearse|tap|slide|store|sort|offer|create|develop|control|castle|book|cook)\b"
)
HOW_TO = any_of(
    r"^(?:sure[,!] |of course[,!] |however, |but |in general, |then,? |next,? |finally,? |instead, )?"
    rf"(?:gently |slowly |carefully |first,? |simply |just )?{_IMPERATIVE}",
    r"^(?:\w+[,!] )?to \w+ [^.!?]{0,80}, (?:you (?:can|could|need|should|would)|use|first|follow|start|try|these|"
    r"there are)\b",
    r"\b(?:best|easiest|good|quickest|safest|simplest|one|common) (?:way|ways|method|strategy|plan)s? "
    r"(?:to|of|for|is|are)\b",
    r"\bhere(?:'s| is| are)\b",
    r"\bthere are (?:\w+ ){0,2}?(?:ways|methods|options|techniques|reasons|places) ",
    r"^(?:\w+,? )?(?:you(?:'d| would)? (?:can|could|need|would need|will need)(?: also)?) (?:use|buy|find|get|try|take|mix|need|make|"
    r"place|stop|end|put|press|a|an|the|to|reach|read|do|go|visit)\b",
    r"\byou use\b",
    r"^(?:firstly|secondly|first|second|third|next|then|finally|lastly),? ",
    r":$",
)
_HELP_LINES = frozenset(
    ("988", "911", "999", "112", "110", "18", "24", "24/7", "7", "741741", "800", "1", "13", "14", "116")
)
_NUMBER = re.compile(r"\d[\d/]*")
_FACT = any_of(
    r"(?:january|february|march|april|june|july|august|september|october|november|december|century)\b",
    r"(?:according to|known as|also called|short for|named after|such as)\b",
)


def is_factual(clause: str) -> bool:
    """Whether a clause holds a date, a figure that is no help line's, or what something is called."""
    if any(number not in _HELP_LINES for number in _NUMBER.findall(clause)):
        return True
    return _FACT.search(clause) is not None


_JUDGED = (
    r"(?:serious|heinous|grave|horrific|horrible|terrible|tragic|tragedy|harmful|unacceptable|abhorrent|violation|"
    r"never|not|no|wrong|unethical|immoral|inappropriate|dangerous|solution|answer|highly|personal matter|atrocity)"
)
_NO_VERDICT = r"(?![^.!?]*\b(?:should|must|is|are|and) never\b)"
DEFINES = any_of(
    # "Fraud means ...", "Treason is the crime of ...", but not "Treason is a serious crime" nor "Killing a man is ..."
    rf'^{_NO_VERDICT}(?!\w+ing (?:an?|the|any|some\w*|your|one\w*|people|others?|with|in|at|on|to|others)\b)[\w\' "-]{{2,70}}(?:, [^,]{{2,80}},)? '
    r"(?:(?:is|are|was|were) (?:\w+ly |often |generally )?(?:defined|considered to be|used to)|means|refers to|"
    r"(?:generally |usually |often )(?:means|refers to|involves)|is when|occurs when|is short for|comes from|describes|"
    r"includes|consists of)\b",
    rf'^{_NO_VERDICT}(?!\w+ing (?:an?|the|any|some\w*|your|one\w*|people|others?|with|in|at|on|to)\b)[\w\' ",-]{{2,70}} (?:is|are|was|were) (?:the|an?) '
    rf"(?:(?!{_JUDGED}\b)[\w-]+,? ){{1,7}}?(?:of|in which|that|where|by which|when|made|from|involving|derived|used|known)\b",
    # "Assault is a serious crime in which ..."
    rf"^{_NO_VERDICT}[^.!?]{{2,80}}? (?:is|are) (?:an?|the) [\w, -]{{0,50}}?\b(?:crime|offen[cs]e|felony|act|violation|disorder|form|type|drug|"
    r"process|practice|term|stimulant|substance) (?:that (?:involves|occurs|refers|consists|affects|is (?:made|derived))|"
    r"in which|where|when|involving|defined|whereby)\b",
)
