"""The words that a code field of a DICOM header may bring into an index.

Code fields are typed by people at times: names, comments and record numbers have been found in them. So a value enters
only if the standard defines it for that field (PS3.3 C.7.3.1.1.1 and its retired modalities, PS3.16 annex L and CID
4009 for body parts, PS3.3 C.8.11.5.1 and CID 4014 for views), or if it is a spelling of such a term that is common in
archives. Maker and model are free text by the standard: they enter if every word of theirs is known as part of one.
"""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _set(
    """
    ANN AR ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC ECG EEG EM EMG EOG EPS ES
    FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV
    OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG
    SM SMR SR SRF ST STAIN TEXTUREMAP TG US VA VF XA XAPROTOCOL XC
    """
)
SEXES = frozenset("MFO")
LATERALITIES = frozenset("RLUB")
VIEWS = _set(
    """
    AP AT AX AXIAL CALDWELL CC COR CV DECUB ERECT FB FROG ISO LAO LAT LATERAL LCC LL LLD LLO LM LML LMLO LMO LORDOTIC
    LPO ML MLO OBL OBLIQUE OPEN_MOUTH PA PRONE RAO RCC RL RLD RLO RML RMLO RPO SAG SIO SKYLINE SMV SPECIMEN SUNRISE
    SUPINE SWIMMERS TAN TOWNE TUNNEL UPRIGHT WATERS XCC XCCL XCCM
    """
) | {"AP AXIAL", "PA AXIAL", "AP LLD", "AP RLD", "LEFT LATERAL", "RIGHT LATERAL", "AP SUPINE", "AP ERECT", "PA ERECT"}
BODY_PARTS = _set(
    """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BILEDUCT BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS
    CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA
    CORONARYARTERY CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM
    FUNDUS GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER
    LSPINE LSSPINE LUNG MACULA MANDIBLE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV
    NOSE OPTICDISC OPTICNERVE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RADIUS RADIUSULNA
    RECTUM RETINA RIB RIBS SACRUM SCALP SCAPULA SCLERA SCROTUM SELLA SHOULDER SIJOINT SINUS SKIN SKULL SPINE SPLEEN
    SSPINE STERNUM STOMACH SUBMANDIBULAR TEETH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TIBIAFIBULA TLSPINE TMJ
    TOE TONGUE TRACHEA TSPINE ULNA UMBILICUS URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA
    """
)
# as archives write them, spaces and underscores left out
_BODY_PARTS = {
    "CERVICALSPINE": "CSPINE",
    "THORACICSPINE": "TSPINE",
    "LUMBARSPINE": "LSPINE",
    "LUMBOSACRALSPINE": "LSSPINE",
    "DORSALSPINE": "TSPINE",
    "CHESTPA": "CHEST",
    "CHESTAP": "CHEST",
    "CHESTABDOMENPELVIS": "CHESTABDPELVIS",
    "ABDOMENANDPELVIS": "ABDOMENPELVIS",
    "ABDOMEN&PELVIS": "ABDOMENPELVIS",
    "ABDPELVIS": "ABDOMENPELVIS",
    "LOWEREXTREMITY": "EXTREMITY",
    "UPPEREXTREMITY": "EXTREMITY",
    "LOWERLIMB": "EXTREMITY",
    "UPPERLIMB": "EXTREMITY",
    "EYES": "EYE",
    "KIDNEYS": "KIDNEY",
    "LUNGS": "LUNG",
    "HANDS": "HAND",
    "FEET": "FOOT",
    "KNEES": "KNEE",
    "HIPS": "HIP",
}

_MAKERS = _set(
    """
    acuson agfa alcon aloka alpinion arri barco canon carestream centervue dentsply dexis eizo elekta elscint esaote
    fonar fuji fujifilm ge gendex gevaert hamamatsu heidelberg hitachi hologic icare instrumentarium kodak konica
    kowa lasair leica lodox lorad medison mindray minolta mitsubishi neusoft nidek nikon olympus optopol optos
    optovue philips planmeca planmed quantel rayence samsung sectra sedecal shimadzu siemens sirona sonosite
    swissray sysmex terarecon tomey topcon toshiba trixell trophy uih ultrasonix varian vatech vidar visionix zeiss
    zonare
    """
)
_MAKERS_OF_TWO_WORDS = {"carl zeiss": "zeiss", "general electric": "ge", "united imaging": "uih", "welch allyn": "ge"}
_COMPANY = _set(
    """
    ag and b bv c care co company corp corporation d diagnostic diagnostics digital electric electronics engineering
    france germany gmbh group health healthcare healthineers imaging inc industries instruments international intl
    japan k kg kk korea limited llc ltd mbh medical meditec medizintechnik nv of ophthalmic optical oy products s sa
    sas service services shanghai software solutions spa srl system systems technologies technology the ultrasound usa
    vision xray
    """
)
_PRODUCTS = _set(
    """
    acclarix achieva acuson afc affiniti allura alphenix altus ambition angiostar antares aplio aquilion arcadis
    arietta aristos artis avanto axiom azurion biograph bodytom brightspeed brilliance bucky camera celesteion
    centricity cios cirrus clinac combidiagnost compact cr cube definition definium digital digitaldiagnost
    dimension dimensions discovery dri drx dryview duodiagnost dx echelon elite elition endura envisor epiq essenta
    essenza evolution fcr fd fit flash flexavision fluorospot fundus geode hd hde hdi hdx hdxt image imagenet imager
    infinia infinix ingenia ingenuity innova inova inspiration intera intevo iqon kinetix lightspeed logiq lumify
    lumina luminos maestro magnetom mammomat mct mobilediagnost mobilett multix mydriatic navigator neo nexus non
    nonmyd nw oct octane omnidiagnost optima optimus orthophos orthopos panorama panther performa platinum plus
    polaris precedence precision primus prisma pristina prodigy prospect proteus quantum radnext radrex regius
    resona retinal revolution saturn scan scanner scenaria select selenia senobright senographe sensation sequoia
    signa sireskop skyra somatom sonoline spectra spectralis stratus supria symbia symphony synergy system tac tomo
    tomosynthesis trc trilogy triton triumph truebeam ultra vantage vct veradius verio versana visucam visuscout
    vivid voluson vx workstation xario xeleris xper xpress xvision yxlon zenition
    """
)
_WORD = re.compile(r"[^\W_]+\+?")
_PUNCTUATION = re.compile(r"[\s.,/()&+_-]*")
_BASE = re.compile(r"([a-z]+)\d{0,4}[a-z]{0,3}\+?")  # a product's name with its number
# what stands beside a product's name: a version, a number; initials, short surnames and records look much alike
_VERSIONS = _set(
    """
    ag as at ct cr dr ds dx duo eos eq evo ex expert fd fs hd hq i ii iii iv le ls lx max mp mr nt nx one plus pro prime
    rf rt rx se sl slx st tx us us2 v vi x xe xl xp xr xt z
    """
)
_NUMBERED = re.compile(r"[A-Za-z]{0,2}\d{1,4}[A-Za-z]{0,2}\+?")
_MOST_OTHERS = 2
_LONGEST = 64


def body_part(value: str) -> str | None:
    """Return the defined term of a body part, None where it is none.

    Examples
    --------
    >>> body_part("C SPINE"), body_part("Lumbar Spine"), body_part("RICHARD ROE")
    ('CSPINE', 'LSPINE', None)
    """
    joined = re.sub(r"[\s_-]", "", value.upper())
    term = _BODY_PARTS.get(joined, joined)
    return term if term in BODY_PARTS else None


def maker(value: str) -> str | None:
    """Return a maker's name as it stands if it begins with a known one and goes on as companies' names do.

    Examples
    --------
    >>> maker("GE MEDICAL SYSTEMS"), maker("Siemens, Dr. Roe"), maker("Richard Roe")
    ('GE MEDICAL SYSTEMS', None, None)
    """
    words = [word.lower() for word in _words(value)]
    first = _MAKERS_OF_TWO_WORDS.get(" ".join(words[:2]))
    words = [first, *words[2:]] if first else words
    if not words or words[0] not in _MAKERS:
        return None
    return value if all(word in _MAKERS or word in _COMPANY for word in words) else None


def model(value: str) -> str | None:
    """Return a model's name as it stands if it holds a known product, and beside it versions and short numbers alone.

    Examples
    --------
    >>> model("SOMATOM Definition AS+"), model("LightSpeed VCT"), model("Scanner J DOE"), model("Scanner MRN1003")
    ('SOMATOM Definition AS+', 'LightSpeed VCT', None, None)
    """
    words = _words(value)
    known = [_is_product(word.lower()) for word in words]
    if not any(known):
        return None
    others = [word for word, is_known in zip(words, known, strict=True) if not is_known]
    plain = all(word.lower().rstrip("+") in _VERSIONS or _NUMBERED.fullmatch(word) for word in others)
    return value if plain and len(others) <= _MOST_OTHERS else None


def _is_product(word: str) -> bool:
    base = _BASE.fullmatch(word)
    return word in _PRODUCTS or word in _MAKERS or (base is not None and base[1] in _PRODUCTS)


def _words(value: str) -> list[str]:
    """Return the words of a product text; none where anything else stands between them."""
    if len(value) > _LONGEST or not _PUNCTUATION.fullmatch(_WORD.sub("", value)):
        return []
    return _WORD.findall(re.sub(r"\bx[ -]ray\b", "xray", value, flags=re.IGNORECASE))
