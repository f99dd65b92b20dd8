"""Declining in languages other than English: in the first person, or for want of a tool. Nothing else is looked for."""

from orchestrator.refusals.clauses import any_of

# Patterns of each language, by its code. A failed look-up ("cannot find") declines nothing, so each names what is
# declined: help, information, an answer, the doing of it.
_PATTERNS = {
    "de": (
        r"\bich (?:kann|darf|werde|möchte)(?: [\w-]+){0,7} (?:nicht|keine\w?) (?:\w+ ){0,3}(?:helfen|"
        r"unterstützen|weiterhelfen|geben|"
        r"beantworten|erfüllen|tun|dienen|bereitstellen|bei|dabei)\b",
        r"\b(?:kann|darf|werde) ich(?: [\w-]+){0,6} (?:nicht|keine\w?) (?:\w+ ){0,2}(?:helfen|unterstützen|"
        r"weiterhelfen|geben|"
        r"beantworten|erfüllen|tun|dienen|bereitstellen)\b",
        r"\b(?:das|dies|die anfrage|diese anfrage) (?:lehne ich|muss ich) (?:\w+ )?ab(?:lehnen)?\b",
        r"\bkeine?s? (?:meiner |der |passende\w? )(?:werkzeuge?|tools?|funktion(?:en)?)\b",
    ),
    "fr": (
        r"\bje ne (?:peux|veux|vais|saurais) pas (?:[\w']+[ -]){0,2}(?:\w')?(?:aider|répondre|fournir|assister|"
        r"donner|"
        r"faire|accéder|satisfaire|partager)|\bje ne suis pas en mesure d|\bje refuse de\b|\bje dois refuser\b",
        r"\bje ne peux malheureusement pas\b|\baucun (?:de mes outils|des outils|outil)\b",
    ),
    "es": (
        r"\bno (?:puedo|voy a|me es posible) (?:\w+ )?(?:ayudar|proporcionar|asistir|cumplir|ofrecer|dar|hacer|"
        r"responder|brindar|compartir)",
        r"\b(?:ninguna de (?:mis|las) (?:herramientas|funciones)|no (?:tengo|hay) (?:\w+ )?(?:herramienta|función))",
    ),
    "it": (
        r"\bnon (?:posso|voglio|sono in grado di) (?:\w+ )?(?:aiutar|fornir|assister|rispondere|soddisfare|dar|fare)",
        r"\b(?:nessuno dei miei strumenti|non (?:ho|c'è) (?:\w+ )?strument)",
    ),
    "pt": (
        r"\bnão (?:posso|vou|consigo) (?:\w+ )?(?:ajudar|fornecer|atender|responder|oferecer|dar|fazer|compartilhar)",
        r"\b(?:nenhuma d(?:as|e) (?:minhas )?ferramentas|não (?:tenho|há) (?:\w+ )?ferramenta)",
    ),
    "nl": (
        r"\bik kan (?:\w+ ){0,4}niet (?:\w+ ){0,2}(?:helpen|geven|beantwoorden|verstrekken)\b",
        r"\bkan ik (?:\w+ ){0,5}niet (?:\w+ )?(?:helpen|geven|beantwoorden|verstrekken)\b",
    ),
    "ja": (
        r"(?:手伝い|手助け|助け|お力|力|協力|支援|サポート|応え|答え|回答|返答|教え|説明|案内|提供|共有|紹介|"
        r"作成|生成|対応|"
        r"実行|実施|予約|ご要望|ご依頼|ご質問|リクエスト)[^ ]{0,12}?(?:できません|出来ません|できかねます|"
        r"致しかねます|いたしかねます|"
        r"しかねます|なれません|られません|られかねます|することは不可能)(?!でした)",
        r"お?断り(?:し|いた|致|させ|しなければ)|(?:遠慮|控え|辞退)させて(?:いただ|頂)|差し控え(?:ます|させ)|"
        r"応じ(?:られません|かねます|ることは)",
        r"申し訳[^ ]{3,60}?(?:できません|出来ません|かねます|られません)(?!でした)",
        r"(?:ツール|機能|関数|手段)(?:は|が|も)(?:ありません|ございません|見当たりません|用意されていません|ない)|"
        r"(?:ツール|機能|関数)では[^ ]{0,20}?(?:できません|出来ません|かねます)",
    ),
    "ko": (
        r"(?:도와|도울|돕|드릴|제공|답변|대답|응답|응할|지원|협조|알려|안내|설명|작성|공유|수행|처리|들어)[^.?]{0,8}?"
        r"(?:수(?:는|가)? ?없(?!는)|못 ?(?:해|합|드)|어렵(?!지)|곤란|않겠)",
        r"거절(?:하겠|합니다|할게|해야|드립|하지 않을 수)|거부(?:하겠|합니다|할게|해야)",
        r"(?:도구|함수|기능)(?:가|는|이|은)? ?(?:없습니다|없어요|없네요|제공되지)",
    ),
    "zh": (
        r"(?:我|我们|恕|抱歉|对不起|對不起|不好意思|遗憾|遺憾)[^.?]{0,10}?(?:不能|无法|無法|不会|不會|不可以|"
        r"没办法|沒辦法|没有办法|"
        r"沒有辦法|不便|不方便|难以|難以|不愿|拒绝|拒絕)(?!找到|访问|訪問|连接|連接|加载|查到|"
        r"打开)[^.?]{0,10}?(?:帮|幫|协助|協助|提供|满足|"
        r"滿足|回答|支持|执行|執行|完成|参与|參與|分享|透露|给出|給出|给你|给您|写|寫|编写|编造|生成|讨论|討論|"
        r"建议|建議|处理|處理|告诉|告訴|"
        r"教|答应|答應|这样做|這樣做|这么做|做这|做到|这件事|这个请求|您的请求|你的请求)",
        r"恕难从命|恕難從命|无可奉告|我(?:必须|只能|不得不)?(?:拒绝|拒絕)(?:回答|提供|这|這|您|你|$|[.,])",
        r"(?:没有|沒有|无|缺少)[^.?]{0,10}?(?:工具|函数|函數|功能)(?:可以|能|可用|来|來|$|[.,])|(?:工具|函数|"
        r"函數|功能)(?:都|均)?(?:无法|無法|不能|不支持)",
    ),
    "ru": (
        r"\b(?:я |мы )?не (?:могу|можем|буду|будем|стану|смогу|намерен\w?|вправе|готов\w?|в состоянии)(?: \w+){0,4}? "
        r"(?:помо\w+|предостав\w+|выполн\w+|отве[чт]\w+|да(?:ть|вать)|поддерж\w+|участв\w+|(?:с)?делать|созда\w+|"
        r"написа\w+|обсужд\w+|рекоменд\w+|советова\w+|раскры\w+|подел\w+|рассказ\w+|сообщ\w+|содейств\w+|подсказ\w+|"
        r"объясн\w+|науч\w+)",
        r"\bне помогу\b|\bотказываюсь\b|\b(?:вынужден\w?|должен|должна|придется|придётся)(?: \w+)? отказать",
        r"\b(?:нет|ни один из)(?: \w+){0,3}? (?:инструмент|функци)\w*",
    ),
    "vi": (
        r"\b(?:không thể|không được phép|không có khả năng|sẽ không|không có quyền)(?: [^\W\d]+){0,4}? (?:giúp|"
        r"hỗ trợ|cung cấp|trả lời|"
        r"thực hiện|đáp ứng|hướng dẫn|viết|tạo|chia sẻ|làm (?:điều|việc)|tham gia|giải thích|tư vấn|tiết lộ)",
        r"\b(?:tôi|mình|em|chúng tôi)(?: [^\W\d]+){0,2}? từ chối\b|\bxin(?: phép)? từ chối\b",
        r"\bkhông có (?:công cụ|chức năng|hàm)\b",
    ),
    "tr": (
        r"\b(?:yardım|yardımcı|destek|bilgi|cevap|yanıt|talim|tavsiye|bunu|isteğ|taleb|talimat|"
        r"liste)\w*(?: \w+){0,4}? "
        r"(?:olama|edeme|vereme|sağlayama|yapama|getireme|sunama|paylaşama|yazama|karşılayama|gerçekleştireme|"
        r"anlatama|önereme)\w*m\b",
        r"\b(?:cevaplayam|yanıtlayam|yardımcı olam|yardım edem|bunu yapam|reddediyor|reddetmek)\w*",
        r"\b(?:araç|aracım|araçlarım|aracı|işlev|fonksiyon)\w*(?: \w+){0,2}? (?:yok|bulunmuyor|mevcut değil)",
    ),
    "pl": (
        r"\bnie (?:mogę|możemy|będę|zamierzam|jestem w stanie|wolno mi)(?: \w+){0,4}? (?:pomóc|pomagać|"
        r"udziel\w+|poda\w+|"
        r"spełni\w+|wykona\w+|zrobić|dostarcz\w+|odpowiedzieć|udostępni\w+|napisać|stworzyć|wspiera\w+|doradza\w+|"
        r"przedstawi\w+|uczestniczy\w+|zapewni\w+|wyjaśni\w+|opisa\w+)",
        r"\bnie pomogę\b|\bodmawiam\b|\bmuszę (?:\w+ )?odmówić\b",
        r"\b(?:nie (?:mam|ma)|żadne z)(?: \w+){0,2}? (?:narzędzi|funkcj)\w*",
    ),
    "hi": (
        r"(?:मदद|सहायता|सहयोग|जानकारी|उत्तर|जवाब|प्रदान|पूरा|समर्थन|निर्देश|अनुरोध|सलाह)[^.?]{0,30}?(?:नहीं (?:कर|"
        r"दे|हो) ?(?:सकत|पाऊ|पाउ)|"
        r"नहीं (?:करूँगा|करूंगा|करूँगी|करूंगी|दूँगा|दूंगा|दूंगी)|असमर्थ)",
        r"मैं [^.?]{0,60}?नहीं (?:कर|दे|बता|लिख|बना|सिखा) ?सकत|मना कर(?:ता|ती|ना)",
        r"(?:उपकरण|टूल|फ़ंक्शन|फंक्शन|साधन) (?:उपलब्ध )?नहीं",
    ),
    "ar": (
        r"(?:لا (?:أستطيع|استطيع|يمكنني|أقدر|يمكن)|لن (?:أستطيع|أتمكن|أقوم)|غير (?:قادرة?|مخولة?) على|"
        r"لست قادر\w?ا? على)"
        r"[^.?]{0,25}?(?:مساعد|تقديم|تلبية|إجابة|اجابة|الإجابة|توفير|تنفيذ|كتابة|مشاركة|القيام|دعم|إعطاء|تزويد|"
        r"إنشاء|الرد|شرح)",
        r"أعتذر[^.?]{0,20}?عن (?:عدم|تقديم|تنفيذ)|أرفض|لن أساعد|لن أقدم",
        r"لا (?:توجد|يوجد|تتوفر|أملك|املك|تتيح)[^.?]{0,20}?(?:أداة|أدوات|وظيفة)",
    ),
}
LANGUAGES = tuple(_PATTERNS)
_DECLINES = any_of(*(pattern for patterns in _PATTERNS.values() for pattern in patterns))
# Every pattern holds one of these.
_STEMS = (
    *("nicht", "kein", "lehne", "je ", "aucun", "puedo", "voy a", "posible", "ningun", "herramienta", "non ", "nessun"),
    *(
        "não",
        "nenhuma",
        "niet",
        "ません",
        "ます",
        "断り",
        "ない",
        "控え",
        "遠慮",
        "辞退",
        "応じ",
        "없",
        "못",
        "어렵",
        "곤란",
    ),
    *(
        "거절",
        "거부",
        "않",
        "제공되지",
        "我",
        "恕",
        "歉",
        "对不起",
        "對不起",
        "遗憾",
        "遺憾",
        "不好意思",
        "工具",
        "函",
        "功能",
    ),
    *(
        "无可",
        "не ",
        "отказ",
        "нет",
        "ни ",
        "không",
        "từ chối",
        "ama",
        "eme",
        "redde",
        "araç",
        "arac",
        "işlev",
        "fonksiyon",
    ),
    *("nie ", "odmaw", "odmów", "żadne", "नहीं", "असमर्थ", "मना", "لا ", "لن ", "غير ", "لست", "أعتذر", "أرفض"),
)


def may_decline_elsewhere(words: str) -> bool:
    """Whether a text holds one of the words that `declines_elsewhere` needs; asked once a reply."""
    return any(stem in words for stem in _STEMS)


def declines_elsewhere(clause: str) -> bool:
    """Whether a clause declines in one of `LANGUAGES`."""
    return _DECLINES.search(clause) is not None
