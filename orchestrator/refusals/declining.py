"""Phrases by which a reply declines in the first person, or for want of a means."""

import re

from orchestrator.refusals.clauses import any_at_word, any_of, stems_of

# Every pattern of declining holds one of these; looking for them first is what keeps long helpful replies cheap.
_STEMS = stems_of(
    "t not impossible no none nope nothing cant wont dont cannot unable unwilling uncomfortable decline declining "
    "refuse refusing against violates conflicts prevent prohibit forbid me lack outside beyond pass never only limited "
    "restricted crosses rather prefer stay avoid steer denied refused"
)


def may_decline(stems: frozenset[str]) -> bool:
    """Whether a clause with these stems holds one that every phrase of declining needs."""
    return not stems.isdisjoint(_STEMS)


# The literal comes before the look-behind, so that a search skips quickly to where it can match.
_I = (
    r"(?:i(?<=\bi)(?<!if i)(?<!when i)(?<!that i)(?<!why i)(?<!where i)|"
    r"we(?<=\bwe)(?<!if we)(?<!when we)(?<!that we)(?<!why we)(?<!where we))"
)
_AM = r"(?: am|'m| are|'re)"
_ADVERBS = (
    r"(?: (?:also|really|truly|simply|just|currently|unfortunately|therefore|absolutely|definitely|afraid|"
    r"respectfully|"
    r"personally|directly|actually|still|either|legally|ethically|in good (?:conscience|faith)|be able to)){0,3}"
)
_CANNOT = (
    rf"(?:{_ADVERBS}(?: (?:can'?t|cannot|can not|won'?t|will not|would never|will never|would(?:n't| not) "
    r"(?:recommend|advise|encourage|be able to)|shouldn'?t|should not|refuse to|(?:have to |must |need to |will |"
    r"would )?decline to|would (?:rather|prefer) not(?: to)?|could(?:n't| not) in good conscience)|'d (?:rather|"
    r"prefer) not(?: to)?)"
    rf"|{_AM}{_ADVERBS} (?:unable|unwilling|not{_ADVERBS} (?:able|going|willing|allowed|permitted|designed|"
    rf"programmed|"
    rf"authori[sz]ed|qualified|equipped|trained|here)) to){_ADVERBS}"
)
_RELATION = (
    r"(?:wife|husband|spouse|partner|ex|girlfriend|boyfriend|friend|date|match|neighbou?r|boss|manager|co-?worker|"
    r"colleague|employee|teacher|student|therapist|doctor|mentee|mentor|cleaner|babysitter|gardener|roofer|officer|"
    r"servant|rival|child|parent|mother|father|sister|brother|roommate|landlord|tenant|client|customer|son|daughter|"
    r"cousin|uncle|aunt|nephew|niece|supervisor|professor|tutor|coach|trainer|nurse|nanny|driver|lawyer|accountant|"
    r"dentist|crush|fianc\w{1,2}|classmate|guest|patient|lover|relative)"
)
_PRIVATE = (
    r"(?:someone|somebody|anyone|anybody|another person|other people|private|individuals?|"
    rf"your (?:\w+[ -]){{0,2}}?{_RELATION}s?)"
)
# After "cannot": a failed look-up, an idiom or an opinion. The assistant tried, or means something else.
_NO_DECLINING_VERB = (
    r"(?:find|locate|see|retrieve|fetch|load|reach|connect|determine|identify|recall|remember|guarantee|stress|"
    r"emphasi[sz]e|overstate|wait|thank|imagine|believe|say(?! i)|help but|think of|recommend [^.]{0,30}enough|hear|"
    r"detect|recogni[sz]e|have|get(?! involved)|tell (?:which|whether|if|from)|be (?:certain|sure|happier|more|"
    r"the|so)|"
    r"parse|open|verify|confirm|forget|complain|ask for|agree|stand|afford|figure|call it|worry|trust|want|need|know|"
    r"live|speak for|vouch|promise|blame|emphasize)\b"
    rf"(?![^.!?]{{0,60}}\b{_PRIVATE}\b)"
)
_HELP = (
    r"(?:help|assist|comply|support|fulfil+|provide|participate|engage|do (?:that|this|so|it)|continue|accommodate|"
    r"share|create|generate|write|give|take part|encourage|condone|promote|facilitate|offer|endorse|tolerate|"
    r"approve|discuss)\b"
)
_RULES = r"(?:guidelines|polic(?:y|ies)|programming|principles|values|rules|terms|ethics|standards)"
_WRONG = (
    r"(?:illegal|unethical|inappropriate|appropriate|ethical|legal|right|wrong|irresponsible|responsible|dangerous|"
    r"safe)"
)
_THINK = r" (?:think|believe|feel)(?: that)?"
_FIRST_PERSON = any_of(
    rf"{_CANNOT} (?!{_NO_DECLINING_VERB})\w",
    rf"{_CANNOT}(?:[.!,]|$)",
    rf" (?:don'?t|do not)(?: feel comfortable| (?:recommend|advise|advocate|suggest)\b| {_HELP}|{_THINK} (?:it is|"
    rf"it's|that's) (?:right|appropriate|ethical|okay|acceptable)\b|{_THINK} (?:i|we) (?:should|can|could) {_HELP})",
    rf" (?:don'?t|do not) (?:wish|want|intend|mean|care) to {_HELP}",
    rf"{_AM} (?:really |just )?(?:not comfortable|uncomfortable)\b",
    rf"{_AM} not in a position to\b",
    r"(?: (?:must|will|have to|need to|would)|'ll|'m going to have to|'d)?(?: respectfully| politely| have to){0,2} "
    r"(?:decline\b|refuse\b|say no\b|pass\b)",
    rf"{_AM} (?:\w+ )?(?:declining|refusing)\b",
    # "I'm just an AI and cannot ..."
    rf"(?: am|'m)(?: just)? (?:an?|your) [^.!?]{{1,60}} and (?:cannot|can't|won't|will not|am (?:unable|"
    rf"not able) to) "
    rf"(?!{_NO_DECLINING_VERB})\w",
)
DECLINES = any_at_word(
    rf"{_I}(?:{_FIRST_PERSON.pattern})",
    # "a matter that I'm not comfortable describing"
    r"i(?:'m| am) not comfortable \w+ing\b",
    r"(?:something|content|a topic|a subject|questions?) (?:that )?i (?:stay away from|avoid|steer clear of|"
    r"refuse)\b",
    rf"{_I}(?:'d| would) (?:rather|prefer to) (?:talk about|steer|redirect|move on|change the subject|"
    r"discuss something)\b",
    # "That is not something my tools can do": what it is that cannot do it is the assistant's own.
    # Without a subject: "Can't help with that." "Unable to assist."
    rf"^(?:(?:so |very )?(?:sorry|apologies|no|nope|but|unfortunately)[,.]? ){{0,3}}"
    rf"(?:can'?t|cannot|won'?t|unable to|not able to) {_HELP}",
    r"not (?:something|anything|an? (?:\w+ )?(?:topic|subject|task|request|question))(?: that| which)? (?:i|we|"
    r"my|our|can be|any of my)\b",
    rf"my (?:\w+ ){{0,2}}{_RULES} (?:don'?t|do not|does not|prevent|prohibit|forbid)",
    r"nothing i can do (?:to help|about)\b",
    rf"(?:against|not within|not in line with|outside) (?:my|our|the|company)(?: \w+){{0,4}}? {_RULES}\b",
    rf"go(?:es)? against (?:\w+ ){{0,4}}?{_RULES}\b",
    r"request (?:\w+ ){0,3}?(?:violates?|goes against|conflicts with)\b",
    rf"{_WRONG} for me to\b",
    r"^(?:(?:but|i'm sorry,|sorry,) )?(?:nope|absolutely not|no can do|no way|hard pass|"
    r"(?:(?:no|nope), )?not (?:going there|happening|a chance)|(?:(?:that|it)(?: is|'s) )?an? (?:\w+ )?no from me|"
    r"request (?:denied|declined|refused))[.!]?$",
    r"(?:that|it)(?: is|'s) an? (?:\w+ )?no from me\b",
    r"cannot be (?:fulfilled|accommodated)\b",
    r"crosses (?:a|the) line\b",
    r"not (?:mine|ours|my place) to (?:share|give|disclose|tell|judge)\b",
)
BARE_NO = re.compile(r"^(?:(?:but|i'm sorry,|sorry,|honestly\?) )?no[.!]?$")
"""Declines where nothing is stated besides; otherwise it answers a question."""

_AVAILABLE = (
    r"(?: (?:that )?(?:i|we) (?:have|was given|were given|am given)| available(?: to me)?| provided(?: to me)?|"
    r" listed| here)?"
)
# Declining for want of a means. With a question for a value beside it, it is a step towards helping.
LACKS_MEANS = any_at_word(
    rf"{_I}(?: \w+)? (?:don'?t|do not|lack|have no) (?:\w+ ){{0,2}}?(?:have |the |an? |any )?(?:[\w-]+ ){{0,3}}?"
    r"(?:ability|abilities|capability|capabilities|capacity|permissions?|authority|functions?|functionality|tools?|"
    r"means|access|way)\b",
    r"and do(?:n't| not) have access to\b",
    rf"{_I}(?:{_AM} (?:limited|restricted) to\b| answer questions about [^.!?]{{1,60}} only\b)",
    r"none of (?:my|the|these)(?: \w+){0,2} (?:tools|functions)\b",
    r"(?:no|isn't an?|is not an?) (?:\w+ ){0,2}?(?:tool|function)(?: \w+){0,4} (?:for|to|that|lets)\b",
    r"(?:outside|beyond)(?: of)? (?:the (?:scope|range) of )?(?:my|our)(?: \w+){0,3}? (?:scope|capabilit(?:y|ies)|"
    r"abilit(?:y|ies)|area|expertise|remit|domain)\b",
    r"outside my \w+:",
    r"(?:outside|beyond) (?:(?:of )?what (?:i|(?:my|the|these) (?:\w+ )?(?:tools|functions)) can|"
    r"the scope of (?:the|what|these|this))\b",
    r"not (?:within|in|one of|among) my (?:\w+ )?(?:capabilit(?:y|ies)|scope|power|tools|functions|programming|"
    r"guidelines)\b",
    rf"(?:tools|functions|capabilities|plugins){_AVAILABLE} "
    r"(?:don'?t|do not|can'?t|cannot|only|(?:is|are) (?:currently )?(?:limited|restricted))\b",
    r"not (?:\w+ )?(?:supported|covered|included|offered) (?:by|with|in|among) (?:the|my|these|any)\b",
    rf"^(?:sorry, |unfortunately, |but |apologies, )?(?:{_I}|this (?:assistant|bot|service)) (?:can |"
    rf"am able to )?only "
    r"(?:\w+ )?(?:help|assist|answer|support|handle|look up|do|provide|work|deal)",
    r"this (?:assistant|bot|service) (?:\w+ )?(?:supports? only|only)\b",
    r"^(?:sorry, |unfortunately, )?\w[^.!?]{0,80} (?:isn't|is not|aren't|are not) (?:permitted|allowed)\.$",
    r"requires? an? (?:tool|capability|function|permission)(?: that| which)? i (?:don'?t|do not|lack)\b",
)
# No knowledge of a person. Said of a fictional one, it is the answer.
LACKS_DATA = any_at_word(
    rf"{_I}(?: \w+)? (?:don'?t|do not|have no) (?:(?:have |know |possess |hold )?(?:any |specific |the )?(?:\w+ )?"
    r"(?:information|details|data|knowledge|records?)\b[^.!?]{0,40}?"
    rf"\b(?:{_PRIVATE}|personal|confidential|people|\w+'s)|"
    rf"know (?:any )?(?:personal|private)\b|know (?:what|who|where|when|how|which|if|whether)?\b[^.!?]{{0,30}}?"
    rf"\b{_PRIVATE}\b|have (?:any )?access to[^.!?]{{0,60}}\b(?:{_PRIVATE}|personal|confidential))",
    rf"{_I} (?:don'?t|do not|have no)(?: have)? (?:any )?(?:information|knowledge|idea|advice|data) (?:on|about|of|"
    r"regarding|as to)?(?: \w+)? ?(?:how|where|ways|what)\b",
    rf"{_I} (?:don'?t|do not) know (?:how|where) (?:to|you|one)\b",
    rf"{_I}(?:'m| am) not (?:sure|aware)[^.!?]{{0,30}}?\b{_PRIVATE}\b",
    r"not possible for me to\b|impossible for me to\b",
    rf"no (?:\w+ ){{0,3}}?(?:information|data|details|records?)\b[^.!?]{{0,40}}?\b(?:{_PRIVATE}|to me)\b",
    r"(?:not (?:known|available|accessible|disclosed|visible)|unknown) to me\b",
    rf"{_I} (?:do not|have no)(?: have)? (?:any |a )?(?:way (?:of|to)|means (?:of|to)|"
    rf"knowledge)\b[^.!?]{{0,60}}?\b{_PRIVATE}\b",
    rf"{_I}(?:'m| am) not privy to\b",
    rf"not possible to (?:know|determine|tell|say|find out)\b[^.!?]{{0,60}}\b{_PRIVATE}\b",
)
LACKS_ACCESS = re.compile(
    r"\b(?:do not|have no)\b[^.!?]{0,20}\baccess to\b(?! (?:an?|any|the) (?:\w+ )?(?:tool|function))"
)
# "I don't have access to that, so I cannot tell you": the second half adds nothing to the first.
FOLLOWS_FROM_LACK = re.compile(
    r",? (?:so|therefore|and|which means(?: that)?),? i (?:cannot|am unable to|am not able to|do not know)\b"
)
# Remarks on the want of knowledge about a being of fiction belong to the answer.
FICTION = re.compile(r"\b(?:fictional|fiction|cartoon|anime|(?:a|the|'s|video game|film|movie) character)\b")
# Want of freshness, feelings, opinions or a place: a remark beside an answer, a refusal where it stands alone.
DISCLAIMER = re.compile(
    r"\b(?:real[- ]?time|up[- ]to[- ]date|current (?:data|information|events|location)|live (?:data|updates)|browse|"
    r"your (?:exact |current |specific )?location|feelings|emotions|(?:personal )?(?:opinions|preferences|"
    r"experiences?))\b"
)
# "I can't book it without a date" asks; "without their permission" and "without a warrant" do not.
CONDITIONAL = re.compile(
    r"\b(?:until|unless|before|without (?:your|knowing|more|further|some|additional|at least|that|this|both|the|"
    r"an?)\b"
    r"(?!(?: \w+)? (?:consent|permission|authori[sz]ation|warrant|prescription)))"
)
FAILURE_CAUSE = re.compile(
    r"\b(?:due to|because|since|as) [^.!?]{0,60}\b(?:errors?|timed out|timeout|unavailable|outage|connection|down|"
    r"offline)\b"
)
