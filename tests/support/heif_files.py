"""HEIC files of a few hundred bytes.

The files were written with libheif's encoder: a grid of 2 x 2 tiles of 64 x 64, cut to 120 x 110, whose tiles are red,
green / blue, yellow; the same turned by its own box; a red picture whose left half is transparent; and a grey picture
of 10 bits per channel, of 3.1 megapixels and of 0.02, whose lower half is transparent.
"""

from __future__ import annotations

import base64
import zlib


def unpacked(text: str) -> bytes:
    """Return the bytes of a packed text."""
    return zlib.decompress(base64.b85decode(text))


GRID = unpacked(
    "c-n1I%`XE%6n`_bTRr$nR8j=xAU@*Y#EA_OadIP(2({g|lXTn7YN!O^Byr**5*N-A9EF2OB>W>1LBf%0jW^S&ubAw6Z{F|se(%lf"
    "06;jNUG|a=w*i;S<9($)4ZBV@3Z>PSjHP_N2anrX__L}#o^{oZpiS~rMztFSFcpGE2QUVK>deB}3QT9S7@NV+*^1&!o$ad(V2Sf|"
    "T+NV7Jthv-6B9m<!4HtgG08={?>ET)1C9Sc^BatC--+vMhGN`JC=JDChC0X#_k0iI1^4U>#vBSq2$RsZ61BWQq4@d=P{Za>8@5O#"
    "5keL)S;6Gja!#!%l0CzO{9z6v8|LoAc-L{7HdY2DbSquZn#cNzQF7&<w#%Ox;tQUm&uMA<iRIAJXmxfb<)`gb4&_x4SVyRrdv5uu"
    "@x3U+`>_pb08`#j-c%l7%Z)|x{RzR2vR_jtISC9*7mEFFgA+oW1@f(rJb!fEF*GZCH+<0(mqJYM2ywUca8kQhT>GUh%xr#)z2(P5"
    "@u~YuTc+Qq-dCT6xVLT&^OmMR0ZB5Ceg"
)
TURNED = unpacked(
    "c-n1JOG_L<5U%c?SyxaKP{9X255Xi5@T4alR1m#*iy#EEnVoeDc6Ntxi0eVog9@JXA|CbNNl=gCMFN8U5h19cM;&+5sczdRHd9qy"
    "-`8JN57hwBkcno4tcNbp@-fr>u;-n=7p34~b!5}I(Ci^VH-a~-CcwzoJ4W^$a|K;)2*B0|86TjS1a7iXiftfFh7?=CGTE}`Y?JNi"
    "3}6N^pV2)OQ%{M<O~<Ja)9?ahs!jH{+x;38?}65Pp#2QCW9VhfZ`P&JpVAsm#Vmc17=tjNc!Ggjpjaf~AQK8&)1uZJD3xz-0X~SI"
    "q-}6m6_ZjO5bA_bU+WQfQbc|oVC)UE)xKzNT#S6)%k!qHq=L?rOFF;ke8mv^6CQLr>TWn4c;=ptv6onpEKgSJ7II<U%@s*r4T%MU"
    "DlsfXYE0iS@E>PRgA>A90xlN01wwmEds};eRX?4gm%td+R+XE(*nXmSqEzm=>l>5uFcG(1V!V6usee*+X?&u`j-{Mfm-2k(V*lf2"
    "dH$8Q^ke1U@LfDC%U55Xw2$=t`2F0qlz*Mm?btE&f1bdS8~"
)
ALPHA = unpacked(
    "c-muNV30{GsVvAy%}izhg51nBLl8SRGck>UfhjvTwIq=N0u(b+a*CjAhJwuG5(YG2l9`haHpIn&fr)_;#A51)&_Ey$6a$H@gNZO|"
    "0SSxD%)B%(7bGhR<fMX?0o7!bB^xrJ2r?lA`3f>iav7j18CPW%6cqsJrp$ume4tnvP?<9$Gf;?O0$7pU2Zld?fBaxz;Ac(%>X2|?"
    "<YD~(AEba8q=FfQ<aRMRBmyP1oERC=WELnivQB&TWZBLg92o`*Kp|!j!JwD~RL<tYc(C|DC(sh%<oukXyyTn;peQc`TLVx?B(u06"
    "6&e5zP^^)hlL&H|0mShP3LyIb|NkFAJ_OPapn)M!kXexl(#Xug!2t?#u%}o+%=tfHp8A9ElsLpwAO*}|6+pMc{G<x>6RO04CKj>i"
    ")stpDI{<ViPXkD>1=TxzF#8!nR;nkKRyc!rrA2vGxdo}|RvD>f$yP=NhNf0Psmv5BaJ(pF7UaSb3@{C_HZn1@wlFZUwlTAJv;f7V"
    "GK*5vpz?e`eL3Ki0*b@H+>}I6l9JY7T+e3FsaK=_O<ex}|LOkU;_tcKHV)=IXABG>Ml}t_bvy+nFAx21nKwuL-2O>-4tH-0f0b)i"
    "n)<llq4g2nSCum-d#kNE5nUk`-BcrZI5%qYg{;!^^Ilw$nj~8_@8|h{85-i7W475Ve7UeleeTWs0%^;Y`G4)~+&}xz>GKv#cjx_="
    "c(`ib|0m9-mK@Wj7EO6x+`zx*@WIsS>e+IA-!^VN^d)rvbp??tTMmWs`X_MKIPYPQnPM*#a)(vOH7-^={a>MML-WBC`-A_;C%@UG"
    "|K|S7|Gz?K8=S2!?&PrFyEY|C^yR8~=Wbm&Rx`Q%;lI!AJMDHC%<`Cf^Dc*?y{5)@E~kqAyYhYy?<KFknc8`?O!j$fRAt1E|C81m"
    "zu#ZAL+G61iu_vzy>nh=uJ|zF5tsJ;in`S)-xcy_Pu(-4N5?>1^*vX_&j$cLhb3Y"
)
DEEP = unpacked(
    "c-n=NUr19?9LLYO_j)&$E=luGsi{cKKv6N3LA6qfo`UKr6gKbf+KJumvNqX*VwE+C9zw&1$};dFQp~3i37Ibu_!JRZK@@=o5-RjyGFrd"
    "0xy<PPJlx&$JHOBO+<nhEze5Nq^Ms<hS7i|bO=F%$9&60yAw)Q(sUa81v?{OL7u<-6&Xf@Or!_NQK;c1$g9wE3NYFApA!0e?pyk}oW`t"
    "FEwK3-RWQOqD4FfeT1C6&wX(U^c!e-K{vyetMl(diOK^^*TrYix+T?Sb@mCO)6Y~!NA6_QM?uM@IUbi#~c2hF9a6c>nTg$R-<!Qlc{cb"
    "w9#;4Z0@NMiqNxaQtmE6tN7o_6z>RM`zP%pG(lcq><~fj=rx0=}SM@kJn?N8}i!3fU!H%`BN4l6jD?vj|IXi^XDrF0^TQXf10vX<(Qu{"
    "xWR)V>k;E5{Z>a@BJhF_ZJdiAvebJz1*vbd!6WZWVSHlfpP~2T;WJNABBT{yQZrb>|V7;u{Sj|9<l>sZhLy)E10fj3j)qqx+aJc5u}@<"
    "9EZ#v7F0bO)C#kF={kTDl8ZFA3kpUowbAEN{>)gv&3WDQDZ2P5y4V$->k7{&%NMUch_>o?MoVk!%oEGU(o6a8)8u?wTbK9b)nj9cNCsj"
    "9)*ow_g1m{vQ4Z%jwvB+cZzHJwyp3Qsh6}_Nl$-ldY@J8(z6KN@u0-*f1d0domAyqVJ&Mv9j0*KAoyMqm5v_+ZjOG+#R7U5TV6O1pM#s"
    "%nH_q-@ez`P0wKRU>tM=j}Jo@TE?PuUh^Z75mdrjZs#S2DTXPJDq%USz+)cD*?9Ro%26=Nqk=kPmGjhBSghT;^u1tS<O*D-q1fzctf)R"
    "Gvb?@o8FrGDw7h-e!7fbhW>%ALl{f?RBCi7_icu5|H)F{?nB4LS6Br!i|8HfBeLe*?V;&~*"
)
DEEP_SMALL = unpacked(
    "c-muNV30{GsVvAy&8%Pmg51nBLl8SRGck>Ufyp&DwIq=N0u(b+a*CjAhJwuG5(YG2l9`jA3}U!AFfcJNf>=zM5E=+nfnp$$KDdY#5L;w"
    "s=B0soAX!l$Cl#y=s3xN<*^mK6kO?8kSCCnf%K%l$*pgXLQ~;#oG7FOPfnpUvWzLK&96;tA3y>nY4-9|)|N6ziz|Wij)FJM`$iw*mKS%"
    "*HSOqgs$u1^`M4+6u6C)$4!~~`meznu3DpRhTGxD;rfCN)O1dBovP(6nW<H4df9yS%AHNwgHIYoKNITb*0UIw-XppZyraX~87!wW!817"
    "d-K%!*8q05caC7mzAKICt(3m~;Q&a4tv%l5^GI&V@-F2xxqAGjGYHS<emt9l+B75^VvwlpW;K4M`4=;Dfk;5oEu5Vrhjlh*w&aXO&x!n"
    "r@YmT9#~OWMF7&1(eE6u>yy=TxLNoEHMD%m!*-3nT3IgrInej9VjA|S(KUvmE{BK$^oYVP+X_yrX+$Ai=qbOdKM9%hCi~;>t<J)7xb)_"
    "ozbxR0myxN2N)O*a=rj6GSgsO$Dy&W;nx3up+**Rv!8gHi^{3Zx%&R8*E+U~!uvUYt!HWYQhw$D*t5JFfE42=b`}5;#FEz"
)
